//! The gRPC server: every service on the one socket, and the loop that accepts connections.
//!
//! There is no limit of streams and no timeout: each task keeps one or two streams open for as
//! long as it lives, all on one connection. Who may connect is decided by the socket's directory.

use std::sync::Arc;

use nomad_proto::base::base_plugin_server::BasePluginServer;
use nomad_proto::drivers::driver_server::DriverServer;
use nomad_proto::health::health_server::HealthServer;
use nomad_proto::plugin::grpc_broker_server::GrpcBrokerServer;
use nomad_proto::plugin::grpc_controller_server::GrpcControllerServer;
use nomad_proto::plugin::grpc_stdio_server::GrpcStdioServer;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use super::{base, host, task};
use crate::lifecycle::Driver;

/// Streams that the agent may reset before we saw them; it does so by the hundred when it stops.
const RESETS: usize = 16 * 1024;

/// Serves connections until `stop` is notified. Streams that are open then are cut.
///
/// # Errors
/// The server ended by itself.
pub(crate) async fn serve(
    listener: UnixListener,
    driver: Arc<Driver>,
    stop: Arc<Notify>,
) -> Result<(), tonic::transport::Error> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(accept(listener, sender));
    let incoming = ReceiverStream::new(receiver).map(Ok::<_, std::io::Error>);
    let server = Server::builder()
        .http2_max_pending_accept_reset_streams(Some(RESETS))
        .http2_max_local_error_reset_streams(Some(RESETS))
        .add_service(
            BasePluginServer::new(base::Base::new(Arc::clone(&driver)))
                .max_decoding_message_size(usize::MAX)
                .max_encoding_message_size(usize::MAX),
        )
        .add_service(
            DriverServer::new(task::Service::new(driver))
                .max_decoding_message_size(usize::MAX)
                .max_encoding_message_size(usize::MAX),
        )
        .add_service(GrpcControllerServer::new(host::Controller::new(Arc::clone(&stop))))
        .add_service(GrpcBrokerServer::new(host::Broker))
        .add_service(GrpcStdioServer::new(host::Stdio))
        .add_service(HealthServer::new(host::Alive));
    tokio::select! {
        ended = server.serve_with_incoming(incoming) => ended,
        () = stop.notified() => Ok(()),
    }
}

/// Accepts indefinitely. A connection that closes at once, or a moment without descriptors, must not
/// end the server: the agent reattaches after it has crashed.
async fn accept(listener: UnixListener, sender: mpsc::Sender<UnixStream>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if sender.send(stream).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}
