//! `nomad-nspawn-fetch convert`: a layer from standard input into an EROFS file.
//!
//! For: one conversion in a process of its own.
//! Trusts: its arguments, not its input.
//! Never: opens anything but the files that its arguments name.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use fetch::{Below, Bounds, Error, Lower, Options, RootAttributes, Summary, convert};

const USAGE: &str = "\
Usage: nomad-nspawn-fetch convert --key HEX [--output FILE] [--above | --lower FILE...]

Reads a tar archive, compressed or not, from standard input and writes an EROFS file.

  --key HEX      the file's key; its first 16 bytes, 32 digits, become the UUID
  --output FILE  where to write; without it standard output, which has to be a file
  --above        there are layers below, which are not given: end with 3 if they are needed
  --lower FILE   a layer below, the uppermost first

Ends with 0 when the file is complete and on disk, 1 when the archive is refused, 2 when something
could not be read or written, 3 when the layers below are needed, 4 when one of them is damaged.
";

struct Arguments {
    options: Options,
    output: File,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args_os().skip(1).collect()) {
        Ok(arguments) => arguments,
        Err(problem) => return end(2, &format!("nomad-nspawn-fetch: {problem}\n\n{USAGE}")),
    };
    match convert(io::stdin(), arguments.output, &arguments.options) {
        Ok(summary) => end(0, &report(&summary)),
        Err(error) => end(code(&error), &format!("{error}\n")),
    }
}

fn end(code: u8, text: &str) -> ExitCode {
    // Where standard error is closed, the code remains.
    match io::stderr().write_all(text.as_bytes()) {
        Ok(()) | Err(_) => ExitCode::from(code),
    }
}

fn code(error: &Error) -> u8 {
    match error {
        Error::Archive(_) | Error::Bound(_) => 1,
        Error::NeedsLower(_) => 3,
        Error::Lower(_) => 4,
        _ => 2,
    }
}

/// One line of words and values.
fn report(summary: &Summary) -> String {
    let root = match summary.root {
        RootAttributes::Implied => "implied",
        RootAttributes::Explicit { special: false } => "plain",
        RootAttributes::Explicit { special: true } => "special",
    };
    format!(
        "size={} inodes={} root={root} opaque-root={} dropped-devices={} dropped-xattrs={} \
         dropped-members={}\n",
        summary.size,
        summary.inodes,
        summary.opaque_root,
        summary.devices,
        summary.xattrs,
        summary.others,
    )
}

fn parse(arguments: Vec<OsString>) -> Result<Arguments, String> {
    let mut arguments = arguments.into_iter();
    if arguments.next().as_deref() != Some("convert".as_ref()) {
        return Err("the command is missing".into());
    }
    let (mut uuid, mut output, mut above, mut layers) = (None, None, false, Vec::new());
    while let Some(option) = arguments.next() {
        let option = option.into_string().map_err(|_| "an option is not text")?;
        if option == "--above" {
            above = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{option} has no value"))?;
        let name = value.display();
        match option.as_str() {
            "--key" => uuid = Some(parse_key(value.to_str().unwrap_or_default())?),
            "--output" => {
                let mut how = OpenOptions::new();
                let file = how.read(true).write(true).create(true).truncate(false).open(&value);
                output = Some(file.map_err(|error| format!("{name}: {error}"))?);
            }
            "--lower" => {
                let file = File::open(&value).map_err(|error| format!("{name}: {error}"))?;
                layers.push(Lower::open(file).map_err(|error| format!("{name}: {error}"))?);
            }
            _ => return Err(format!("unknown option {option}")),
        }
    }
    let below = match (above, layers.is_empty()) {
        (true, true) => Below::Unknown,
        (true, false) => return Err("--above and --lower exclude each other".into()),
        (false, true) => Below::Nothing,
        (false, false) => Below::Layers(layers),
    };
    let output = match output {
        Some(file) => file,
        None => io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| format!("standard output: {error}"))?
            .into(),
    };
    let uuid = uuid.ok_or("--key is missing")?;
    Ok(Arguments { options: Options { uuid, below, bounds: Bounds::default() }, output })
}

/// The first 16 bytes of a key in hexadecimal.
fn parse_key(text: &str) -> Result<[u8; 16], String> {
    let digits: Vec<u8> = text
        .chars()
        .map_while(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .take(32)
        .collect();
    let mut uuid = [0; 16];
    if digits.len() < 32 {
        return Err("--key needs 32 hexadecimal digits or more".into());
    }
    for (byte, pair) in uuid.iter_mut().zip(digits.chunks(2)) {
        *byte = pair.iter().fold(0, |value, digit| value << 4 | digit);
    }
    if uuid == [0; 16] {
        return Err("--key begins with 32 zeros, which is no UUID".into());
    }
    Ok(uuid)
}
