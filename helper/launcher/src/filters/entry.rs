//! One entry of the cache: a text in lines, with what the filters were made from and the filters.
//!
//! ```text
//! nomad-nspawn filters 2
//! options 1ffffffffff ~@mount
//! version 257
//! file 64768 131 47000 1700000000.5 1700000000.6 /usr/bin/systemd-nspawn
//! filter 20000000000000041500004c3e0000c0…
//! sum 0123456789abcdef
//! ```
//!
//! Only root can write the directory, so the sum guards against damage, not against an attacker. Pure;
//! trusts nothing of the text: what is not exactly an entry is none.

use std::fmt::Write as _;
use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use kernel::layout::NSPAWN_FILTERS;
use kernel::syscalls::{FILTER_MAX, Instruction};

use super::options::Options;

/// The first line; its number changes with the form.
const FORM: &str = "nomad-nspawn filters 2";
/// Filters of one set.
pub(super) const COUNT: usize = NSPAWN_FILTERS as usize;

/// Filters in the order in which they are installed.
pub(crate) type Filters = Vec<Vec<Instruction>>;

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) options: Options,
    /// Version of the systemd-nspawn that has made them; 0: not readable.
    pub(crate) version: u32,
    /// What systemd-nspawn had mapped, and what the dynamic loader reads.
    pub(crate) files: Vec<Stamp>,
    pub(crate) filters: Filters,
}

/// A file as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) path: PathBuf,
    /// Device, inode, size, time of change and of the last write.
    state: String,
}

impl Stamp {
    /// `now`: `None` where there is no such file.
    pub(crate) fn new(path: PathBuf, now: Option<&Metadata>) -> Self {
        Self { path, state: state(now) }
    }

    /// Whether the file is still the same.
    pub(crate) fn is_of(&self, now: Option<&Metadata>) -> bool {
        self.state == state(now)
    }
}

/// The time of change alone would do, but for a clock that was set back.
fn state(now: Option<&Metadata>) -> String {
    let Some(now) = now else { return "- - - - -".to_owned() };
    format!(
        "{} {} {} {}.{} {}.{}",
        now.dev(),
        now.ino(),
        now.size(),
        now.ctime(),
        now.ctime_nsec(),
        now.mtime(),
        now.mtime_nsec()
    )
}

/// The name of the file: of the options, so that a new set of filters replaces the old one. Jobs
/// choose the rules, so it must be hard to find two sets of one name, which would take turns: 128
/// bits of SipHash, and not a sum.
pub(crate) fn name(options: &Options) -> String {
    let half = |number: u8| {
        let mut hasher = DefaultHasher::new();
        (number, options.words()).hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(0), half(1))
}

impl Entry {
    /// The text.
    pub(crate) fn write(&self) -> String {
        let (words, version) = (self.options.words().join(" "), self.version);
        let mut text = format!("{FORM}\noptions {words}\nversion {version}\n");
        // A String takes everything.
        for Stamp { path, state } in &self.files {
            _ = writeln!(text, "file {state} {}", path.display());
        }
        for filter in &self.filters {
            text.push_str("filter ");
            for Instruction { code, jump_true, jump_false, operand } in filter {
                _ = write!(text, "{code:04x}{jump_true:02x}{jump_false:02x}{operand:08x}");
            }
            text.push('\n');
        }
        _ = writeln!(text, "sum {:016x}", sum(text.as_bytes()));
        text
    }

    /// Reads an entry. `None`: it is none, or one of another form.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (lines, last) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let whole = text.get(..lines.len().checked_add(1)?)?;
        if last != format!("sum {:016x}", sum(whole.as_bytes())) {
            return None;
        }
        let mut lines = lines.lines().map(|line| line.split_once(' ').unwrap_or((line, "")));
        let (first, rest) = lines.next()?;
        (format!("{first} {rest}") == FORM).then_some(())?;
        let (mut options, mut version) = (None, None);
        let (mut files, mut filters) = (Vec::new(), Filters::new());
        for (word, value) in lines {
            match word {
                "options" => {
                    options = Options::parse(&value.split(' ').collect::<Vec<_>>());
                }
                "version" => version = Some(value.parse().ok()?),
                "file" => files.push(read_stamp(value)?),
                "filter" if filters.len() < COUNT => filters.push(read_filter(value)?),
                _ => return None,
            }
        }
        let (options, version) = (options?, version?);
        (filters.len() == COUNT).then_some(Self { options, version, files, filters })
    }
}

fn read_stamp(value: &str) -> Option<Stamp> {
    let (at, _) = value.match_indices(' ').nth(4)?;
    let (state, path) = value.split_at_checked(at)?;
    let path = path.strip_prefix(' ').filter(|path| path.starts_with('/'))?;
    Some(Stamp { path: path.into(), state: state.to_owned() })
}

fn read_filter(digits: &str) -> Option<Vec<Instruction>> {
    let (all, rest) = digits.as_bytes().as_chunks::<16>();
    let instruction = |digits: &[u8; 16]| {
        let number = u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        let [a, b, jump_true, jump_false, operand @ ..] = number.to_be_bytes();
        let (code, operand) = (u16::from_be_bytes([a, b]), u32::from_be_bytes(operand));
        Some(Instruction { code, jump_true, jump_false, operand })
    };
    let is_one = rest.is_empty() && (1..=FILTER_MAX).contains(&all.len());
    is_one.then(|| all.iter().map(instruction).collect())?
}

/// FNV-1a: two texts of one length that differ in one place never have the same.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::OwnPath;
    use proto::capability::Capabilities;
    use proto::task_spec::process::{SyscallName, SyscallRule};

    fn entry() -> Entry {
        let rule = |allow, name| SyscallRule { allow, name: SyscallName::new(name).unwrap() };
        let instruction =
            |operand| Instruction { code: 0x15, jump_true: 1, jump_false: 0xff, operand };
        let meta = OwnPath::constant("/proc/self/exe").metadata().unwrap();
        Entry {
            options: Options {
                bounding: Capabilities::of_mask(0x25),
                rules: vec![rule(false, "@mount"), rule(true, "bpf")],
            },
            version: 257,
            files: vec![
                Stamp::new("/usr/bin/a b".into(), Some(&meta)),
                Stamp::new("/etc/none".into(), None),
            ],
            filters: [
                vec![vec![instruction(0xc000_003e), instruction(1)]; COUNT - 1],
                vec![vec![instruction(0)]],
            ]
            .concat(),
        }
    }

    #[test]
    fn an_entry_is_read_back() {
        let text = entry().write();
        assert_eq!(Entry::read(&text), Some(entry()), "{text}");
        assert!(text.contains("\noptions 25 ~@mount bpf\nversion 257\n"), "{text}");
        assert!(text.contains("filter 001501ffc000003e001501ff00000001\n"), "{text}");
    }

    /// Two sets of one name would take turns in one file, and each start would miss.
    #[test]
    fn a_name_is_of_all_options() {
        let rules = |all: &[(bool, &'static str)]| {
            let rule = |(allow, name): &(bool, _)| SyscallRule {
                allow: *allow,
                name: SyscallName::new(*name).unwrap(),
            };
            Options { bounding: Capabilities::of_mask(0x25), rules: all.iter().map(rule).collect() }
        };
        let all = [
            rules(&[]),
            rules(&[(true, "bpf")]),
            rules(&[(false, "bpf")]),
            rules(&[(true, "bpf"), (true, "acct")]),
            rules(&[(true, "acct"), (true, "bpf")]),
            Options { bounding: Capabilities::of_mask(0x24), ..rules(&[]) },
        ];
        let names: std::collections::BTreeSet<String> = all.iter().map(name).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.iter().all(|name| name.len() == 32 && !name.contains('.')), "{names:?}");
        assert_eq!(name(&rules(&[])), name(&rules(&[])));
        // The halves are two hashes.
        assert!(names.iter().all(|name| name[..16] != name[16..]), "{names:?}");
    }

    /// Every cut, and every change of one byte.
    #[test]
    fn a_damaged_entry_is_none() {
        let text = entry().write();
        for at in 0..text.len() {
            assert_eq!(Entry::read(&text[..at]), None, "cut at {at}");
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let damaged = String::from_utf8(bytes).unwrap();
                assert_eq!(Entry::read(&damaged), None, "bit {bit} at {at}");
            }
        }
    }

    #[test]
    fn what_has_a_right_sum_may_still_be_none() {
        let with = |lines: &str| {
            let text = format!("{FORM}\n{lines}");
            format!("{text}sum {:016x}\n", sum(text.as_bytes()))
        };
        let some = |count| "filter 0006000000000000\n".repeat(count);
        let good = format!("options 25\nversion 1\nfile 1 2 3 4.5 6.7 /x\n{}", some(COUNT));
        assert!(Entry::read(&with(&good)).is_some());
        // Fewer filters than systemd-nspawn installs, and more.
        for count in [0, 1, COUNT - 1, COUNT + 1] {
            assert_eq!(
                Entry::read(&with(&format!("options 25\nversion 1\n{}", some(count)))),
                None,
                "{count}"
            );
        }
        for bad in [
            "version 1\n",
            "options 25\n",
            "options x\nversion 1\n",
            "options 25\nversion x\n",
            "options 25\nversion 1\nfile 1 2 3 4.5 /x\n",
            "options 25\nversion 1\nfile 1 2 3 4.5 6.7 x\n",
            "options 25\nversion 1\nmore\n",
        ] {
            assert_eq!(Entry::read(&with(&format!("{bad}{}", some(COUNT)))), None, "{bad}");
        }
        for filter in ["", "000600000000000", "000600000000000x"] {
            let text = format!("options 25\nversion 1\n{}filter {filter}\n", some(COUNT - 1));
            assert_eq!(Entry::read(&with(&text)), None, "{filter}");
        }
    }
}
