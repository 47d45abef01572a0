//! Directories, programs, conversions and mounts.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Cursor};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use fetch::{Below, Bounds, Error, Lower, Options, Summary, convert};

pub(crate) const UUID: [u8; 16] = *b"a layer's key...";

/// A directory that goes with its test.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("fetch-{}-{number}", std::process::id());
        // Each conversion ends with fdatasync(2), which takes long where others write as well.
        // A kernel before 6.6 has no `user.*` there.
        let in_memory = Path::new("/dev/shm").join(&name);
        let flags = rustix::fs::XattrFlags::empty();
        if fs::create_dir(&in_memory).is_ok() {
            if rustix::fs::lsetxattr(&in_memory, "user.test", b"", flags).is_ok() {
                return Self(in_memory);
            }
            fs::remove_dir(&in_memory).unwrap();
        }
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn make_directory(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// Programs that are not on every machine, with their Debian packages.
const PROGRAMS: [(&str, &str); 7] = [
    ("fsck.erofs", "erofs-utils"),
    ("umoci", "umoci"),
    ("zstd", "zstd"),
    ("xz", "xz-utils"),
    ("bzip2", "bzip2"),
    ("unshare", "util-linux"),
    ("tar", "tar"),
];

/// Installs what is missing, once.
pub(crate) fn install_programs() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let missing = || {
            let exists = |name: &str| {
                let mut paths = std::env::split_paths("/usr/sbin:/usr/bin:/sbin:/bin");
                paths.any(|path| path.join(name).exists())
            };
            let programs = PROGRAMS.iter().filter(move |(name, _)| !exists(name));
            programs.map(|(_, package)| *package).collect::<Vec<_>>()
        };
        let packages = missing();
        if packages.is_empty() {
            return;
        }
        eprintln!("installing {packages:?} with apt-get");
        let script = format!(
            "export DEBIAN_FRONTEND=noninteractive; apt-get -q update && \
             apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends {}",
            packages.join(" ")
        );
        let status = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).status();
        assert!(
            status.is_ok_and(|status| status.success()) && missing().is_empty(),
            "these tests need the packages {packages:?}, which apt-get did not install"
        );
    });
}

/// Runs a shell script in a directory; its output.
pub(crate) fn shell(directory: &Path, script: &str) -> Vec<u8> {
    install_programs();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(directory)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
    output.stdout
}

/// Converts bytes with everything by default.
pub(crate) fn convert_bytes(
    archive: &[u8],
    output: &Path,
    below: Below,
    bounds: Bounds,
) -> Result<Summary, Error> {
    convert_stream(Cursor::new(archive.to_vec()), output, below, bounds)
}

/// Converts a stream. Afterwards the file is whole, or is none that the launcher would mount.
pub(crate) fn convert_stream(
    stream: impl std::io::Read + 'static,
    output: &Path,
    below: Below,
    bounds: Bounds,
) -> Result<Summary, Error> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(output);
    let result = convert(stream, file.unwrap(), &Options { uuid: UUID, below, bounds });
    match &result {
        Ok(summary) => {
            assert_eq!(fs::metadata(output).unwrap().len(), summary.size);
            check_file(output);
        }
        Err(_) => assert!(Lower::open(File::open(output).unwrap()).is_err()),
    }
    result
}

/// Converts an archive that is a whole root.
pub(crate) fn convert_file(archive: &Path, output: &Path) -> Summary {
    let file = File::open(archive).unwrap();
    convert_stream(file, output, Below::Nothing, Bounds::default()).unwrap()
}

/// fsck.erofs, and no feature that the launcher would refuse.
pub(crate) fn check_file(path: &Path) {
    install_programs();
    let output = Command::new("fsck.erofs").arg(path).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && !text.contains("<E>"), "fsck.erofs: {text}");
    let dump = Command::new("dump.erofs").arg("-s").arg(path).output().unwrap();
    let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
    let line = |name: &str| {
        let line = dump.lines().find(|line| line.starts_with(name));
        line.unwrap().split_once(':').unwrap().1.trim().to_string()
    };
    assert_eq!(line("Filesystem features"), "", "{dump}");
    let blocks: u64 = line("Filesystem blocks").parse().unwrap();
    assert_eq!(blocks * 4096, fs::metadata(path).unwrap().len());
}

/// A mount in a namespace of its own, which goes with its process.
#[derive(Debug)]
pub(crate) struct Mounted {
    child: Child,
    /// Its end is the process's end.
    stdin: Option<ChildStdin>,
    pub(crate) root: PathBuf,
}

impl Mounted {
    /// Mounts one file.
    pub(crate) fn new(file: &Path) -> Self {
        Self::stack(&[file])
    }

    /// Mounts files on each other, the uppermost first, as the launcher does.
    pub(crate) fn stack(files: &[&Path]) -> Self {
        let mut script = String::from("set -e; mount -t tmpfs tmpfs /mnt; cd /mnt; mkdir root\n");
        let mut names = Vec::new();
        for (number, file) in files.iter().enumerate() {
            let file = file.display();
            // A kernel with few loop devices left can mount the file itself.
            script += &format!(
                "mkdir {number}; mount -t erofs -o loop,ro {file} {number} 2>&1 || \
                 mount -t erofs -o ro {file} {number}\n"
            );
            names.push(number.to_string());
        }
        if let [name] = names.as_slice() {
            script += &format!("mount --bind {name} root\n");
        } else {
            script += &format!(
                "mount -t overlay -o ro,redirect_dir=nofollow,metacopy=off,lowerdir={} overlay root\n",
                names.join(":")
            );
        }
        script += "echo mounted; exec cat >/dev/null";
        Self::start(&script)
    }

    fn start(script: &str) -> Self {
        install_programs();
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let count = output.read_line(&mut line).unwrap();
            if line == "mounted\n" {
                break;
            }
            said += &line;
            assert!(count > 0, "no mount; has the kernel EROFS, overlayfs and loop? {said}");
        }
        let root = PathBuf::from(format!("/proc/{}/root/mnt/root", child.id()));
        Self { stdin: child.stdin.take(), child, root }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("unshare: {error}");
        }
    }
}
