//! The command: descriptors, exit codes, one sentence.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::builder::Archive;
use crate::support::tools::{Scratch, check_file};

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn run(archive: &[u8], arguments: &[&str], scratch: &Scratch) -> Output {
    fs::write(scratch.join("input"), archive).unwrap();
    let output = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(scratch.join("stdout"))
        .unwrap();
    Command::new(env!("CARGO_BIN_EXE_nomad-nspawn-fetch"))
        .args(arguments)
        .stdin(File::open(scratch.join("input")).unwrap())
        .stdout(Stdio::from(output))
        .output()
        .unwrap()
}

fn code(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

fn uuid(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    bytes[1072..1088].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_layer_goes_from_standard_input_into_a_file() {
    let scratch = Scratch::new();
    let archive = Archive::new().file("a", b"1").device("d").end();
    let output = run(&archive, &["convert", "--key", KEY], &scratch);
    let (status, text) = code(&output);
    assert_eq!(status, 0, "{text}");
    assert_eq!(
        text,
        "size=8192 inodes=2 root=implied opaque-root=false dropped-devices=1 dropped-xattrs=0 \
         dropped-members=0\n"
    );
    check_file(&scratch.join("stdout"));
    assert_eq!(uuid(&scratch.join("stdout")), KEY[..32]);
    let named = scratch.join("named");
    let named = named.to_str().unwrap();
    let output = run(&archive, &["convert", "--key", KEY, "--output", named], &scratch);
    assert_eq!(code(&output).0, 0);
    assert!(fs::read(named).unwrap() == fs::read(scratch.join("stdout")).unwrap());
    // With the layer just made below it.
    let above = Archive::new().file("new/b", b"").hard_link("c", "a").end();
    let output = run(&above, &["convert", "--key", KEY, "--lower", named], &scratch);
    assert_eq!(code(&output).0, 0, "{output:?}");
}

#[test]
fn exit_codes_are_classes() {
    let scratch = Scratch::new();
    let bad = Archive::new().file("../a\n", b"").end();
    let (status, text) = code(&run(&bad, &["convert", "--key", KEY], &scratch));
    assert_eq!(status, 1);
    assert_eq!(text, "archive refused: member \"../a\\n\": the path \"../a\\n\" contains \"..\"\n");
    let above = Archive::new().file("d/a", b"").end();
    let output = run(&above, &["convert", "--key", KEY, "--above"], &scratch);
    assert_eq!(code(&output).0, 3);
    for arguments in [
        &["convert"][..],
        &[],
        &["convert", "--key", "12"],
        &["convert", "--key", KEY, "--what", ""],
        &["convert", "--key", &KEY.replace(|_| true, "0")],
        &["convert", "--key"],
    ] {
        assert_eq!(code(&run(&above, arguments, &scratch)).0, 2, "{arguments:?}");
    }
    fs::write(scratch.join("lower"), [0; 8192]).unwrap();
    let lower = scratch.join("lower");
    let arguments = ["convert", "--key", KEY, "--lower", lower.to_str().unwrap()];
    assert_eq!(code(&run(&above, &arguments, &scratch)).0, 2);
    // A disk that is full is not the archive's fault.
    let output = Command::new(env!("CARGO_BIN_EXE_nomad-nspawn-fetch"))
        .args(["convert", "--key", KEY])
        .stdin(File::open(scratch.join("input")).unwrap())
        .stdout(File::options().read(true).write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(code(&output).0, 2);
}
