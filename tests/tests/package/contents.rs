//! What is in the packages, without a host.

use crate::{PACKAGE, Scratch};
use nspawn_tests::package::{deb, rpm};
use nspawn_tests::{Suite, outer, product, rootfs};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All that is neither documentation nor an example, with its mode; all of it root's.
const FILES: [(&str, &str); 22] = [
    ("etc/nomad-nspawn/policy.toml", "-rw-r--r--"),
    ("usr/bin/nomad-nspawnctl", "-rwxr-xr-x"),
    ("usr/lib/nomad/plugins/nspawn", "-rwxr-xr-x"),
    ("usr/lib/systemd/system/machine-nspawn.slice", "-rw-r--r--"),
    ("usr/lib/systemd/system/nomad-nspawn-helper.service", "-rw-r--r--"),
    ("usr/lib/systemd/system/nomad-nspawn-helper.socket", "-rw-r--r--"),
    ("usr/lib/sysusers.d/nomad-nspawn.conf", "-rw-r--r--"),
    ("usr/lib/tmpfiles.d/nomad-nspawn.conf", "-rw-r--r--"),
    ("usr/lib/udev/rules.d/59-nomad-nspawn.rules", "-rw-r--r--"),
    ("usr/libexec/nomad-nspawn/nomad-nspawn-fetch", "-rwxr-xr-x"),
    ("usr/libexec/nomad-nspawn/nomad-nspawn-helper", "-rwxr-xr-x"),
    ("usr/libexec/nomad-nspawn/nomad-nspawn-task", "-rwxr-xr-x"),
    ("usr/share/bash-completion/completions/nomad-nspawnctl", "-rw-r--r--"),
    ("usr/share/doc/nomad-driver-nspawn/changelog.gz", "-rw-r--r--"),
    ("usr/share/doc/nomad-driver-nspawn/copyright", "-rw-r--r--"),
    ("usr/share/fish/vendor_completions.d/nomad-nspawnctl.fish", "-rw-r--r--"),
    ("usr/share/lintian/overrides/nomad-driver-nspawn", "-rw-r--r--"),
    ("usr/share/man/man5/nomad-nspawn-policy.toml.5.gz", "-rw-r--r--"),
    ("usr/share/man/man7/nomad-driver-nspawn.7.gz", "-rw-r--r--"),
    ("usr/share/man/man8/nomad-nspawn-helper.8.gz", "-rw-r--r--"),
    ("usr/share/man/man8/nomad-nspawnctl.8.gz", "-rw-r--r--"),
    ("usr/share/zsh/vendor-completions/_nomad-nspawnctl", "-rw-r--r--"),
];
const PROGRAMS: [&str; 5] = [
    "usr/bin/nomad-nspawnctl",
    "usr/lib/nomad/plugins/nspawn",
    "usr/libexec/nomad-nspawn/nomad-nspawn-fetch",
    "usr/libexec/nomad-nspawn/nomad-nspawn-helper",
    "usr/libexec/nomad-nspawn/nomad-nspawn-task",
];

/// Mode, owner and path of each entry of the package.
fn entries() -> Vec<(String, String, String)> {
    let list = outer::run(Command::new("dpkg-deb").arg("--contents").arg(&*PACKAGE)).unwrap();
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let path = words[5].trim_start_matches("./").to_owned();
        (words[0].to_owned(), words[1].to_owned(), path)
    };
    list.lines().map(entry).collect()
}

#[test]
fn every_file_is_roots_and_has_its_mode() {
    let mut seen = BTreeSet::new();
    for (mode, owner, path) in entries() {
        assert!(owner == "0/0" || owner == "root/root", "{path}: {owner}");
        if mode.starts_with('d') {
            assert_eq!(mode, "drwxr-xr-x", "{path}");
        } else if path.ends_with(".md") || path.contains("/examples/") || path.ends_with(".svg") {
            assert_eq!(mode, "-rw-r--r--", "{path}");
        } else {
            seen.insert((path, mode));
        }
    }
    let listed = FILES.map(|(path, mode)| (path.to_owned(), mode.to_owned()));
    assert_eq!(seen, BTreeSet::from(listed));
}

#[test]
fn two_packages_of_one_tree_are_the_same_bytes() {
    let first = std::fs::read(&*PACKAGE).unwrap();
    let again = std::fs::read(deb::build().unwrap()).unwrap();
    assert!(first == again, "{} and {} bytes", first.len(), again.len());
}

#[test]
fn programs_are_hardened() {
    let scratch = Scratch::new("hardened");
    let tree = scratch.0.join("tree");
    deb::unpack(&PACKAGE, &tree).unwrap();
    for program in PROGRAMS {
        let read = |what: &str| {
            outer::run(Command::new("readelf").args(["--wide", what]).arg(tree.join(program)))
                .unwrap()
        };
        // Position independent with an interpreter.
        assert!(read("--file-header").contains("DYN ("), "{program}");
        let (segments, dynamic) = (read("--program-headers"), read("--dynamic"));
        assert!(segments.contains("INTERP") && segments.contains("GNU_RELRO"), "{program}");
        let stack = segments.lines().find(|line| line.contains("GNU_STACK")).unwrap();
        assert!(!stack.contains("RWE"), "{program}: {stack}");
        assert!(dynamic.contains("NOW"), "{program}: {dynamic}");
        for word in ["RPATH", "RUNPATH", "TEXTREL"] {
            assert!(!dynamic.contains(word), "{program}: {dynamic}");
        }
    }
}

#[test]
fn rpm_has_the_same_files() {
    if outer::find("rpm").is_none() {
        outer::install(&["rpm"]).unwrap();
    }
    let package = rpm::build(&PACKAGE).unwrap();
    let query = |words: &[&str]| outer::run(Command::new("rpm").args(words).arg(&package)).unwrap();
    let files = query(&["--query", "--package", "--list"]);
    let files: BTreeSet<&str> = files.lines().map(|path| path.trim_start_matches('/')).collect();
    let all = entries();
    let ours = all.iter().filter(|(mode, ..)| !mode.starts_with('d'));
    assert_eq!(files, ours.map(|(.., path)| path.as_str()).collect());
    let config = query(&["--query", "--package", "--configfiles"]);
    assert_eq!(config.trim(), "/etc/nomad-nspawn/policy.toml");
    for program in PROGRAMS {
        let format = "[%{FILEMODES:perms} %{FILEUSERNAME} %{FILENAMES}\\n]";
        let modes = query(&["--query", "--package", "--queryformat", format]);
        assert!(modes.contains(&format!("-rwxr-xr-x root /{program}\n")), "{modes}");
    }
}

fn source(path: &str) -> String {
    std::fs::read_to_string(product::workspace().join(path)).unwrap()
}

/// Verbs and options of the tool's own summary.
fn words_of_usage() -> BTreeSet<String> {
    let usage = outer::run(Command::new(product::build_ctl().unwrap()).arg("--help")).unwrap();
    let synopsis = usage.lines().filter_map(|line| line.trim().strip_prefix("nomad-nspawnctl "));
    let split = |line: &str| -> Vec<String> {
        let all = line.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
        all.filter(|it| it.len() > 2).map(str::to_owned).collect()
    };
    let words: BTreeSet<String> = synopsis.flat_map(split).collect();
    // Parts of file names.
    words.into_iter().filter(|word| word != "hcl" && word != "json").collect()
}

#[test]
fn manual_and_completions_have_every_word_of_the_tool() {
    let words = words_of_usage();
    for word in ["doctor", "--agent-unit", "explain", "verify", "retire", "--list"] {
        assert!(words.contains(word), "{word}: {words:?}");
    }
    let manual = source("docs/man/nomad-nspawnctl.8").replace("\\-", "-");
    for word in &words {
        let in_manual = word.strip_prefix('-').map_or(word.clone(), |rest| format!("Fl {rest}"));
        assert!(manual.contains(&in_manual), "{word} in the manual");
        for shell in ["bash", "zsh", "fish"] {
            let text = source(&format!("helper/ctl/completions/nomad-nspawnctl.{shell}"));
            let name = if shell == "fish" { word.trim_start_matches('-') } else { word };
            assert!(text.contains(name), "{word} in the completion of {shell}");
        }
    }
    assert!(source("docs/man/nomad-nspawn-helper.8").contains("check-policy"));
}

#[test]
fn the_completion_of_bash_completes() {
    let file = product::workspace().join("helper/ctl/completions/nomad-nspawnctl.bash");
    let complete = |words: &str| {
        let script = format!(
            "compopt() {{ :; }}; . {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _nomad_nspawnctl; echo \"${{COMPREPLY[@]}}\"",
            file.display()
        );
        outer::run(Command::new("bash").args(["-euc", &script])).unwrap().trim().to_owned()
    };
    assert_eq!(complete("nomad-nspawnctl do"), "doctor");
    assert_eq!(complete("nomad-nspawnctl policy ''"), "check explain");
    assert_eq!(complete("nomad-nspawnctl doctor --agent-unit x --p"), "--plugin");
    assert_eq!(complete("nomad-nspawnctl policy explain --"), "--json --policy");
    assert_eq!(complete("nomad-nspawnctl filters v"), "verify");
    assert_eq!(complete("nomad-nspawnctl retire --"), "--list");
}

/// Runs a script in the suite's tree with lintian, with the package at /tmp/package.deb.
fn in_tree(suite: Suite, script: &str) -> (bool, String) {
    let tree = rootfs::with_lintian(suite).unwrap();
    // A mount namespace of its own: the tree stays as it is, and nothing is left mounted.
    let outside = "mount -t tmpfs none $0/tmp; mount -t proc proc $0/proc; \
                   cp $1 $0/tmp/package.deb; chroot $0 sh -c \"$2\" 2>&1";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-euc", outside])
        .args([tree, PathBuf::from(&*PACKAGE)])
        .args([script]);
    let out =
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
    let out = out.output().unwrap();
    (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
}

fn lint(suite: Suite) {
    let (good, text) =
        in_tree(suite, "lintian --allow-root --fail-on error,warning /tmp/package.deb");
    assert!(good && !text.contains("E: ") && !text.contains("W: "), "{}: {text}", suite.name());
    // Each page is formatted, and troff has nothing to remark.
    let script = "dpkg-deb --extract /tmp/package.deb /tmp/tree; cd /tmp/tree/usr/share/man; \
                  for page in */*; do man --warnings --encoding=UTF-8 --troff-device=utf8 --ditroff \
                  --local-file $page > /tmp/out || echo failed; test -s /tmp/out; done";
    let (good, text) = in_tree(suite, script);
    assert!(good && text.is_empty(), "{}: {text}", suite.name());
}

#[test]
fn trixies_lintian_and_man_have_no_remark() {
    lint(Suite::Trixie);
}

#[test]
fn bookworms_lintian_and_man_have_no_remark() {
    lint(Suite::Bookworm);
}

/// Every key is in the pages that are made of the documents.
#[test]
fn manual_pages_have_every_key() {
    let scratch = Scratch::new("pages");
    let tree = scratch.0.join("tree");
    deb::unpack(&PACKAGE, &tree).unwrap();
    let page = |path: &str| {
        let file: &Path = &tree.join("usr/share/man").join(path);
        outer::run(Command::new("gzip").args(["--decompress", "--stdout"]).arg(file)).unwrap()
    };
    let keys = |document: &str| -> Vec<String> {
        let text = source(document);
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
        let keys = rows.filter_map(|row| row.split_once("` | ")).map(|(key, _)| key.to_owned());
        keys.collect()
    };
    let (policy, driver) =
        (page("man5/nomad-nspawn-policy.toml.5.gz"), page("man7/nomad-driver-nspawn.7.gz"));
    assert!(keys("docs/POLICY.md").len() > 30 && keys("docs/CONFIG.md").len() > 100);
    for (text, document, mark) in
        [(&policy, "docs/POLICY.md", "limits."), (&driver, "docs/CONFIG.md", "image")]
    {
        let found: Vec<_> =
            keys(document).into_iter().filter(|key| key.starts_with(mark)).collect();
        assert!(!found.is_empty());
        for key in found {
            assert!(text.contains(&format!(".It Sy {key}\n")), "{key} of {document}");
        }
    }
}
