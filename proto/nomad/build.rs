//! Compiles the gRPC messages with protox (no protoc needed).

fn main() -> Result<(), Box<dyn std::error::Error>> {
    compile()?;
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}

fn compile() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "plugins/base/proto/base.proto",
        "plugins/drivers/proto/driver.proto",
        "plugins/shared/structs/proto/recoverable_error.proto",
        "go-plugin/grpc_broker.proto",
        "go-plugin/grpc_controller.proto",
        "go-plugin/grpc_stdio.proto",
        "grpc/health.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
