//! The Nomad binary: the one that `RIG_NOMAD` or PATH names, else built from its Go module and
//! cached.
//!
//! For [`crate::host`]. Nomad is used for tests only. It trusts the Go module proxy's checksums,
//! also for a newer Go where the machine's is too old. It never downloads a ready-made Nomad.

use crate::{Rig, cache, outer};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// Names a binary by its path, or one of [`RELEASES`] to build.
const VARIABLE: &str = "RIG_NOMAD";

/// A release that can be built from its module.
struct Release {
    version: &'static str,
    /// Nomad's go.mod takes its `api` from its own tree, which a module of another cannot.
    api: &'static str,
    /// The replace lines of its own go.mod: those of a dependency do not count.
    replaced: &'static [&'static str],
}

/// The first is the default: the last release under an open-source licence.
const RELEASES: [Release; 2] = [
    Release {
        version: "1.6.3",
        api: "v0.0.0-20231030125810-e0497bff1437",
        replaced: &[
            "github.com/Microsoft/go-winio => github.com/endocrimes/go-winio v0.4.13-0.20190628114223-fb47a8b41948",
            "github.com/armon/go-metrics => github.com/armon/go-metrics v0.0.0-20230509193637-d9ca9af9f1f9",
            "github.com/hashicorp/hcl => github.com/hashicorp/hcl v1.0.1-0.20201016140508-a07e7d50bbee",
        ],
    },
    Release {
        version: "1.11.3",
        api: "v0.0.0-20261016150620-df630b26e78a",
        replaced: &[
            "github.com/Microsoft/go-winio => github.com/endocrimes/go-winio v0.4.13-0.20190628114223-fb47a8b41948",
            "github.com/hashicorp/hcl => github.com/hashicorp/hcl v1.0.1-nomad-1",
        ],
    },
];

const BUILD: [&str; 6] = ["build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o", "nomad"];

/// What these modules ask for at most. A newer Go does as well; an older one is used to get this
/// one, because not every Go fetches it by itself, and some are set not to.
const GO: [u32; 3] = [1, 26, 0];

/// Where a Nomad comes from.
enum Choice {
    Binary(PathBuf, &'static str),
    Built(&'static Release, &'static str),
}

/// Path of a Nomad binary on the outer machine; the choice is printed.
///
/// # Errors
/// When what is named is not there, or there is neither a `nomad` nor a way to build one.
pub fn binary() -> Result<PathBuf> {
    static ONCE: Once = Once::new();
    let say = |text: String| ONCE.call_once(|| outer::say(&text));
    match choose(std::env::var(VARIABLE).ok().as_deref(), outer::find("nomad"))? {
        Choice::Binary(path, why) => {
            let version = outer::run(Command::new(&path).arg("version"))?;
            let version = version.lines().next().unwrap_or_default().to_owned();
            say(format!("Nomad: {}, {version} ({why})", path.display()));
            Ok(path)
        }
        Choice::Built(release, why) => {
            say(format!("Nomad: {} from its Go module ({why})", release.version));
            let module = release.module();
            let dir =
                cache::entry("nomad", &[&module, &BUILD.join(" ")], |dir| build(dir, &module))?;
            Ok(dir.join("nomad"))
        }
    }
}

fn choose(named: Option<&str>, found: Option<PathBuf>) -> Result<Choice> {
    match (named.filter(|text| !text.is_empty()), found) {
        (Some(path), _) if path.contains('/') => {
            Ok(Choice::Binary(fs::canonicalize(path).context(VARIABLE)?, VARIABLE))
        }
        (Some(version), _) => {
            let release = RELEASES.iter().find(|release| release.version == version);
            let all = RELEASES.map(|release| release.version).join(", ");
            let unknown = format!("{VARIABLE}={version}: a path, or one of {all}");
            Ok(Choice::Built(release.context(unknown)?, VARIABLE))
        }
        (None, Some(path)) => Ok(Choice::Binary(path, "in the PATH")),
        (None, None) => {
            let [release, ..] = &RELEASES;
            Ok(Choice::Built(release, "the default"))
        }
    }
}

impl Release {
    /// A module of its own whose tool is this Nomad.
    fn module(&self) -> String {
        format!(
            "module rig/nomad\n\ngo 1.25\n\ntool github.com/hashicorp/nomad\n\n\
             require (\n\tgithub.com/hashicorp/nomad v{}\n\tgithub.com/hashicorp/nomad/api {}\n)\n\n\
             replace (\n\t{}\n)\n",
            self.version,
            self.api,
            self.replaced.join("\n\t")
        )
    }
}

/// The version of the Nomad in a test host: what tests that are tied to one ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub [u32; 3]);

impl Version {
    /// Reads `Nomad v1.6.3` and what follows.
    fn read(text: &str) -> Option<Self> {
        let word = text.split_whitespace().nth(1)?.strip_prefix('v')?;
        let word = word.split(['-', '+']).next()?;
        let mut numbers = word.split('.').map(|number| number.parse().ok());
        Some(Self([numbers.next()??, numbers.next()??, numbers.next()??]))
    }
}

impl Rig {
    /// Asks the instance's `nomad` for its version.
    ///
    /// # Errors
    /// When it has none, or its answer cannot be read.
    pub fn nomad_version(&self) -> Result<Version> {
        let text = self.run(&["nomad", "version"])?;
        match Version::read(&text) {
            Some(version) => Ok(version),
            None => bail!("not a version of Nomad: {text}"),
        }
    }
}

fn build(dir: &Path, module: &str) -> Result<()> {
    fs::create_dir_all(dir)?;
    let go = compiler(dir)?;
    fs::write(dir.join("go.mod"), module)?;
    let mut command = clean(&go, dir);
    command.args(BUILD).arg("github.com/hashicorp/nomad");
    outer::run_long("building Nomad from its Go module", "4 minutes", &mut command)
        .context("building Nomad")
}

/// A Go command that nothing around it changes: neither a workspace nor flags of another project.
fn clean(go: &Path, dir: &Path) -> Command {
    let mut command = Command::new(go);
    command.current_dir(dir).env("GOWORK", "off").env("GOTOOLCHAIN", "local");
    command.env_remove("GOFLAGS").env_remove("GOROOT");
    command
}

/// A Go that is new enough: the machine's, else Debian's, else one that these fetch as a module.
fn compiler(dir: &Path) -> Result<PathBuf> {
    let there = || outer::find("go").or_else(|| usual("/usr/local/go/bin/go"));
    let go = match there() {
        Some(go) => go,
        None => {
            outer::say("no `nomad` and no Go compiler to build it");
            outer::install(&["golang-go"]).context("install Go or put a `nomad` into the PATH")?;
            there().context("golang-go is installed, but brought no `go`")?
        }
    };
    let version = outer::run(clean(&go, dir).arg("version"))?;
    if release(&version).is_some_and(|found| found >= GO) {
        return Ok(go);
    }
    outer::say(&format!("too old to build Nomad: {}", version.trim_end()));
    toolchain(&go, dir).with_context(|| {
        let [a, b, c] = GO;
        format!(
            "{} cannot fetch Go {a}.{b}.{c}: install that or a newer one, or put a `nomad` into the PATH",
            version.trim_end()
        )
    })
}

fn usual(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path)).filter(|path| path.is_file())
}

/// The numbers of `go version go1.19.8 linux/amd64`; an unreleased Go has none.
fn release(text: &str) -> Option<[u32; 3]> {
    let word = text.split(' ').nth(2)?.strip_prefix("go")?;
    let mut numbers = word.split('.').map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next().unwrap_or(Some(0))?])
}

/// Fetches a Go as the module that it is published as, which any Go can, and returns its command.
fn toolchain(go: &Path, dir: &Path) -> Result<PathBuf> {
    let [a, b, c] = GO;
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let module = format!("golang.org/toolchain@v0.0.1-go{a}.{b}.{c}.linux-{arch}");
    let download = |more: &[&str]| {
        let mut command = clean(go, dir);
        command.args(["mod", "download"]).args(more).arg(&module);
        command
    };
    outer::run_long(&format!("fetching Go {a}.{b}.{c}"), "30 s", &mut download(&[]))?;
    let told: serde_json::Value = serde_json::from_str(&outer::run(&mut download(&["-json"]))?)?;
    let root = PathBuf::from(told.get("Dir").and_then(|dir| dir.as_str()).context("no Dir")?);
    // A module's files are not executable; a newer Go would know which ones of these must be.
    for directory in ["bin".to_owned(), format!("pkg/tool/linux_{arch}")] {
        for file in fs::read_dir(root.join(directory))? {
            fs::set_permissions(file?.path(), fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(root.join("bin/go"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_and_compared() {
        let read = |word: &str| release(&format!("go version {word} linux/amd64\n"));
        assert_eq!(read("go1.19.8"), Some([1, 19, 8]));
        assert_eq!(read("go1.25"), Some([1, 25, 0]));
        assert_eq!(read("go1.26rc1"), None);
        assert_eq!(read("devel"), None);
        assert!(read("go1.25.8").unwrap() < GO && read("go1.26.8").unwrap() > GO);
    }

    #[test]
    fn a_named_nomad_comes_before_the_paths_and_1_6_3_is_the_default() {
        let built = |named, found| match choose(named, found).unwrap() {
            Choice::Built(release, _) => release.version.to_owned(),
            Choice::Binary(path, _) => path.display().to_string(),
        };
        let found = || Some(PathBuf::from("/opt/nomad"));
        assert_eq!(built(None, None), "1.6.3");
        assert_eq!(built(Some(""), None), "1.6.3");
        assert_eq!(built(Some("1.11.3"), found()), "1.11.3");
        assert_eq!(built(None, found()), "/opt/nomad");
        assert_eq!(built(Some("/usr/../etc/passwd"), found()), "/etc/passwd");
        for wrong in ["1.7", "/no/such/nomad"] {
            let error = choose(Some(wrong), found()).err().unwrap();
            assert!(format!("{error:#}").contains("RIG_NOMAD"), "{error:#}");
        }
    }

    #[test]
    fn versions_of_nomad_are_read_and_compared() {
        let read = |text| Version::read(text).unwrap();
        assert_eq!(read("Nomad v1.6.3\nRevision x"), Version([1, 6, 3]));
        assert_eq!(read("Nomad v1.11.3-dev (abc)"), Version([1, 11, 3]));
        assert!(read("Nomad v1.6.3") < read("Nomad v1.11.3"));
        assert_eq!(Version::read("nomad"), None);
    }

    #[test]
    fn modules_name_their_release_and_its_replacements() {
        for release in &RELEASES {
            let module = release.module();
            assert!(
                module.contains(&format!("hashicorp/nomad v{}\n", release.version)),
                "{module}"
            );
            assert!(release.replaced.iter().all(|line| module.contains(line)), "{module}");
        }
    }
}
