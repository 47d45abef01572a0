//! The readers: packets, whole messages, policy files, names, job configurations, arguments.

use super::{Read, Target, samples};
use crate::oracle::compare::next_policy;
use crate::oracle::file::{Preset, Settings};
use crate::oracle::generate;
use crate::oracle::random::Random;
use crate::{msgpack, race};
use anyhow::{Context as _, Result, ensure};
use bincode::{Decode, Encode};
use kernel::image_store::{SUPER_LEN, check_superblock};
use launcher::test_access as door;
use nomad_proto::drivers::TaskConfig;
use proto::codec::{self, CodecError};
use proto::layer::{Digest, ImageRecord};
use proto::limits;
use proto::name::{ImageName, TaskKey, TaskName, VariableName};
use proto::path::{Absolute, Component};
use proto::plan::Plan;
use proto::secret::Secret;
use proto::task_spec::{Payload, TaskSpec};
use serde_json::json;
use std::path::Path;

/// Memory that a packet of 64 KiB may take while it is decoded.
const PACKET: usize = 128 * 1024;
/// Memory that a specification or plan may take: the codec's own limit, and a packet's.
const WHOLE: usize = limits::SPEC_MAX * 2 + PACKET;
/// Memory for everything else; none of it is longer than 16 KiB here.
const OTHER: usize = 2 * 1024 * 1024;

/// What is taken must encode to the same bytes, and must not be taken with one byte more.
fn exact<T: 'static>(
    decode: fn(&[u8]) -> Result<T, CodecError>,
    encode: fn(&T) -> Result<Vec<u8>, CodecError>,
) -> Read {
    Box::new(move |bytes| {
        let Ok(message) = decode(bytes) else { return Ok(false) };
        if encode(&message).as_deref() != Ok(bytes) {
            return Err("is taken, but encodes to other bytes".to_owned());
        }
        let longer = [bytes, &[0]].concat();
        match decode(&longer) {
            Err(CodecError::Trailing | CodecError::TooLong) => Ok(true),
            _ => Err("is taken with a byte behind it".to_owned()),
        }
    })
}

fn packet<T: Encode + Decode<()> + 'static>(name: &'static str, samples: &[T]) -> Result<Target> {
    let corpus = samples.iter().map(codec::encode).collect::<Result<_, _>>()?;
    Ok(Target { name, memory: PACKET, corpus, read: exact(codec::decode::<T>, codec::encode::<T>) })
}

fn whole<T: Encode + Decode<()> + 'static>(name: &'static str, samples: &[T]) -> Result<Target> {
    // Some are as long as they may be, or longer.
    let all = samples.iter().filter_map(|sample| codec::encode_whole(sample).ok());
    let corpus: Vec<Vec<u8>> = all.filter(|bytes| bytes.len() < 4096).collect();
    ensure!(!corpus.is_empty(), "{name}: no sample is short enough");
    let read = exact(codec::decode_whole::<T>, codec::encode_whole::<T>);
    Ok(Target { name, memory: WHOLE, corpus, read })
}

fn specs() -> Vec<TaskSpec> {
    let mut random = Random::new(11);
    let mut all = Vec::new();
    for preset in [Preset::Strict, Preset::Compat] {
        let settings = Settings::of(preset);
        all.extend((0..200).map(|_| generate::spec(&mut random, &settings).0));
    }
    all
}

fn policy() -> Target {
    let mut random = Random::new(12);
    let mut corpus: Vec<_> = (0..100).map(|_| next_policy(&mut random).0.into_bytes()).collect();
    corpus.push(
        b"[limits]\nmemory = \"2g\"\n[images]\npaths = [{ path = \"/a\", writable = true }]\n"
            .to_vec(),
    );
    let read: Read = Box::new(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return Ok(false) };
        Ok(policy::parse(text).is_ok())
    });
    Target { name: "policy file", memory: OTHER, corpus, read }
}

/// Records of images, as the daemon reads them from the store.
fn records() -> Result<Target> {
    let corpus = samples::records()?.iter().map(ImageRecord::write).collect::<Result<_, _>>()?;
    Ok(Target {
        name: "image record",
        memory: PACKET,
        corpus,
        read: exact(ImageRecord::read, ImageRecord::write),
    })
}

/// Superblocks of layers. What is taken must be what the converter writes, but for one field.
fn superblocks() -> Result<Target> {
    let (blocks, digest) = (5_u32, Digest([0x5a; 32]));
    let mut good = Vec::with_capacity(SUPER_LEN);
    good.extend(0xe0f5_e1e2_u32.to_le_bytes());
    good.extend([0; 8]);
    good.extend([12, 0, 36, 0]);
    good.extend(3_u64.to_le_bytes());
    good.extend([0; 12]);
    good.extend(blocks.to_le_bytes());
    good.extend([0; 8]);
    good.extend(digest.uuid());
    good.resize(SUPER_LEN, 0);
    let wanted = good.clone();
    let read: Read = Box::new(move |bytes| {
        let Ok(superblock) = bytes.try_into() else { return Ok(false) };
        let taken = check_superblock(superblock, u64::from(blocks) * 4096, &digest).is_ok();
        // The number of inodes is what the kernel shows of the file system, no more.
        let differs = bytes
            .iter()
            .zip(&wanted)
            .enumerate()
            .any(|(at, (one, other))| one != other && !(16..24).contains(&at));
        if taken == differs {
            Err(format!("taken: {taken}, differs: {differs}"))
        } else {
            Ok(taken)
        }
    });
    Ok(Target { name: "superblock", memory: OTHER, corpus: vec![good], read })
}

/// What no name may hold, decided by other means than the names' own.
fn check_text(kind: &str, taken: bool, text: &str, wild: bool) -> Result<(), String> {
    if taken && (wild || text.chars().any(char::is_control)) {
        return Err(format!("{kind} is taken"));
    }
    Ok(())
}

fn names() -> Target {
    let corpus = [
        "/var/lib/machines/web",
        "0e8b1c2d-1111-2222-3333-444455556666/web.1/00c0ffee",
        "web-1.example",
        "/a/../b",
        "TOKEN_1",
    ];
    let read: Read = Box::new(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return Ok(false) };
        let climbs = Path::new(text).components().any(|c| c == std::path::Component::ParentDir);
        let path = Absolute::parse(text);
        check_text("path", path.is_ok(), text, climbs || !text.starts_with('/'))?;
        if let Ok(path) = &path {
            let plain: std::path::PathBuf = Path::new(text).components().collect();
            let same = path.to_path() == plain;
            check_text("path", true, "", !same)?;
        }
        let slash = text.contains('/') || text == ".." || text == "." || text.is_empty();
        check_text("component", Component::new(text).is_ok(), text, slash)?;
        check_text("task name", TaskName::new(text).is_ok(), text, slash)?;
        let odd = slash || text.contains([' ', '%', ':', '\\']);
        check_text("image name", ImageName::new(text).is_ok(), text, odd)?;
        let odd = odd || text.contains(['=', '-', '.', '"', '$']);
        check_text("variable", VariableName::new(text).is_ok(), text, odd)?;
        let key = text.parse::<TaskKey>();
        let fields = text.split('/').count();
        check_text("task id", key.is_ok(), text, fields != 3)?;
        let same = key.as_ref().map(ToString::to_string);
        check_text("task id", same.is_ok_and(|one| !one.eq_ignore_ascii_case(text)), "\n", false)?;
        Ok(path.is_ok() || key.is_ok() || TaskName::new(text).is_ok())
    });
    let corpus = corpus.map(|text| text.as_bytes().to_vec());
    // A path that climbs is no sample that is taken.
    let corpus = corpus.into_iter().filter(|text| text != b"/a/../b").collect();
    Target { name: "names and paths", memory: OTHER, corpus, read }
}

fn configurations() -> Target {
    let values = [
        json!({ "image": "/var/lib/machines/web", "command": ["/bin/sh", "-c", "true"] }),
        json!({ "image": "web", "boot": true, "ephemeral": true, "resolv_conf": "copy-host" }),
        json!({ "image": "web", "bind": [{ "/srv": "/mnt" }], "capability": ["CAP_CHOWN"] }),
    ];
    let corpus = values.iter().map(msgpack::encode).collect();
    let alloc = "0e8b1c2d-1111-2222-3333-444455556666";
    let dir = format!("/var/lib/nomad/alloc/{alloc}");
    let read: Read = Box::new(move |bytes| {
        let task = TaskConfig {
            id: format!("{alloc}/web/00c0ffee"),
            name: "web".to_owned(),
            alloc_id: alloc.to_owned(),
            alloc_dir: dir.clone(),
            stdout_path: format!("{dir}/alloc/logs/.web.stdout.fifo"),
            stderr_path: format!("{dir}/alloc/logs/.web.stderr.fifo"),
            msgpack_driver_config: bytes.to_vec(),
            ..TaskConfig::default()
        };
        Ok(driver::explain::specification(&task, 257, &[]).is_ok())
    });
    Target { name: "job configuration", memory: OTHER, corpus, read }
}

/// Reads a word of systemd-nspawn's bind option as systemd does (extract_first_word() with colons
/// as separators, backslashes kept from the next character).
fn fields(option: &str) -> Vec<String> {
    let (mut all, mut escaped) = (vec![String::new()], false);
    for c in option.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            ':' if !escaped => all.push(String::new()),
            c => {
                escaped = false;
                if let Some(last) = all.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    all
}

/// No word of the job becomes an option, and a bind's target stays one field.
fn arguments() -> Result<Target> {
    let plan = race::plan(Path::new("/host"))?;
    let read: Read = Box::new(move |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let words: Vec<Secret> = text.split('\n').map(Secret::new).collect();
        let count = words.len();
        let plan = Plan { payload: Payload::Command { words }, ..plan.clone() };
        let target = proto::target::Target::parse(&text);
        let source = Path::new("/run/nomad-nspawn/stage/bind-0");
        let binds: Vec<_> = target.iter().map(|target| (source, target)).collect();
        let all = door::arguments(&plan, &binds);
        let dashes =
            all.iter().position(|word| word == "--").context("--").map_err(|e| e.to_string())?;
        let (options, rest) = all.split_at(dashes);
        let same = rest.iter().skip(1).map(String::as_str).eq(text.split('\n'));
        if !same || rest.len() != count + 1 {
            return Err("the words behind -- are not the job's".to_owned());
        }
        let options: Vec<_> = options.iter().filter(|word| word.starts_with("--bind")).collect();
        if options.len() != binds.len() {
            return Err("another number of binds".to_owned());
        }
        for (option, (source, target)) in options.into_iter().zip(binds) {
            let (_, value) = option.split_once('=').unwrap_or_default();
            let wanted = [source.display().to_string(), target.to_string(), "rbind".to_owned()];
            if fields(value) != wanted {
                return Err(format!("systemd-nspawn reads {value:?} as another bind"));
            }
        }
        Ok(target.is_ok())
    });
    let corpus = ["/mnt/a:b", "/mnt/a\\b", "/--bind=:host", "/mnt/+x", "/mnt/a\\\\:b,c"];
    let corpus = corpus.map(|text| text.as_bytes().to_vec()).to_vec();
    Ok(Target { name: "arguments", memory: OTHER, corpus, read })
}

/// All of them.
///
/// # Errors
/// When a sample cannot be encoded.
pub fn all() -> Result<Vec<Target>> {
    Ok(vec![
        packet("Request", &samples::requests()?)?,
        packet("Reply", &samples::replies()?)?,
        packet("Order", &samples::orders())?,
        packet("Report", &samples::reports())?,
        whole("TaskSpec", &specs())?,
        whole("Plan", &samples::plans()?)?,
        whole("ExecSpec", &samples::commands()?)?,
        whole("Work", &samples::works()?)?,
        packet("SessionReport", &samples::session_reports())?,
        packet("WorkerReport", &samples::worker_reports())?,
        records()?,
        superblocks()?,
        policy(),
        names(),
        configurations(),
        arguments()?,
    ])
}
