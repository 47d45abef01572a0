//! The job's environment on its way into the container, off every command line.
//!
//! systemd-nspawn reads a settings file named after the machine; ours lies on a tmpfs that only
//! this task's mount namespace has. A value arrives byte for byte inside double quotes when each
//! inner quote is written as `"'"'"` (measured on 252 and 257).
//!
//! The file's format cannot hold line breaks or other control characters. When a value has one, the
//! whole environment goes through systemd-nspawn's own and `--setenv=NAME` (one such option makes
//! it ignore the file's variables: merge_settings() of nspawn.c). Then no name may be there that
//! steers systemd-nspawn, the C library or a library of theirs.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use proto::name::MachineName;
use proto::spec::Variable;

use super::nspawn;
use super::step::{At, Problem};

/// Beginnings of names that systemd-nspawn, the C library or a library of theirs acts upon.
const STEERING: [&str; 31] = [
    "SYSTEMD_",
    "LD_",
    "GLIBC_",
    "MALLOC_",
    "LISTEN_",
    "NOTIFY_",
    "WATCHDOG_",
    "DBUS_",
    "JOURNAL_",
    "INVOCATION_ID",
    "MAINPID",
    "MANAGERPID",
    "CREDENTIALS_",
    "LOCPATH",
    "NLSPATH",
    "GCONV_",
    "GETCONF_",
    "TMPDIR",
    "TZDIR",
    "RES_",
    "RESOLV_",
    "LOCALDOMAIN",
    "HOSTALIASES",
    "NIS_",
    "LIBMOUNT_",
    "LIBBLKID_",
    "BLKID_",
    "OPENSSL_",
    "SSL_",
    "SELINUX",
    "XDG_",
];

/// The way that the environment takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Through the settings file.
    File,
    /// Through systemd-nspawn's own environment.
    Inherited,
}

/// Chooses the way.
pub(super) fn choose(variables: &[Variable]) -> Result<Way, Problem> {
    let needs = |v: &&Variable| v.value.reveal().chars().any(|c| c.is_control() && c != '\t');
    let Some(broken) = variables.iter().find(needs) else { return Ok(Way::File) };
    let steers = |v: &&Variable| STEERING.iter().any(|p| v.name.as_str().starts_with(p));
    match variables.iter().find(steers) {
        None => Ok(Way::Inherited),
        Some(steering) => Err(Problem::refused(
            format!("environment variable {}", steering.name),
            format!(
                "cannot be set beside {}, whose value has a line break or another control \
                 character: systemd-nspawn itself would act upon it; put one of them in a file",
                broken.name
            ),
        )),
    }
}

/// The settings file's text.
fn text(variables: &[Variable]) -> String {
    let mut text = String::from("[Exec]\n");
    for variable in variables {
        text.push_str("Environment=\"");
        text.push_str(variable.name.as_str());
        text.push('=');
        text.push_str(&variable.value.reveal().replace('"', r#""'"'""#));
        text.push_str("\"\n");
    }
    text
}

/// Writes the settings file. Needs [`super::namespace::private_settings`] before it.
pub(super) fn write(machine: &MachineName, variables: &[Variable]) -> Result<(), Problem> {
    let path = Path::new(nspawn::RUNTIME).join(format!("{machine}.nspawn"));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .at(path.display())?;
    file.write_all(text(variables).as_bytes()).at(path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::name::VariableName;
    use proto::secret::Secret;

    fn variable(name: &str, value: &str) -> Variable {
        Variable { name: VariableName::new(name).unwrap(), value: Secret::new(value) }
    }

    #[test]
    fn quotes_are_left_and_entered_again() {
        let one = variable("A", r#"say "hi" \ $X %n "#);
        assert_eq!(text(&[one]), "[Exec]\nEnvironment=\"A=say \"'\"'\"hi\"'\"'\" \\ $X %n \"\n");
    }

    #[test]
    fn line_breaks_take_the_other_way_unless_a_name_steers() {
        let plain = [variable("A", "x"), variable("LD_PRELOAD", "/x"), variable("T", "a\tb")];
        assert_eq!(choose(&plain).unwrap(), Way::File);
        let broken = [variable("A", "x"), variable("B", "x\ny")];
        assert_eq!(choose(&broken).unwrap(), Way::Inherited);
        for name in ["LD_PRELOAD", "SYSTEMD_SECCOMP", "NOTIFY_SOCKET", "GLIBC_TUNABLES"] {
            assert!(choose(&[variable(name, "x"), variable("B", "x\ny")]).is_err(), "{name}");
        }
    }
}
