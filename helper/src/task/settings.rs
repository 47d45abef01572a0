//! The job's environment on its way into the container, off every command line.
//!
//! systemd-nspawn reads a settings file named after the machine; ours lies on a tmpfs that only
//! this task's mount namespace has. A value arrives byte for byte inside double quotes when each
//! inner quote is written as `"'"'"` (measured on 252 and 257). The file's format cannot hold line
//! breaks or other control characters: such values go through systemd-nspawn's own environment and
//! `--setenv=NAME`, so their names must steer nothing in it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use proto::name::MachineName;
use proto::spec::Variable;

use super::nspawn;
use super::step::{At, Problem};

/// Beginnings of names that systemd-nspawn, the C library or a library of theirs reads.
const STEERING: [&str; 38] = [
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
    "LC_",
    "LANG",
    "LOCPATH",
    "NLSPATH",
    "GCONV_",
    "GETCONF_",
    "PATH",
    "HOME",
    "SHELL",
    "TMP",
    "TEMP",
    "TERM",
    "COLORTERM",
    "NO_COLOR",
    "TZ",
    "RES_",
    "LOCALDOMAIN",
    "HOSTALIASES",
    "NIS_",
    "LIBMOUNT_",
    "LIBBLKID_",
    "BLKID_",
    "OPENSSL_",
    "SSL_",
    "XDG_",
];

/// The environment, divided by the way it takes.
#[derive(Debug, Default)]
pub(super) struct Environment<'a> {
    /// Through the settings file.
    pub(super) file: Vec<&'a Variable>,
    /// Through systemd-nspawn's own environment.
    pub(super) inherited: Vec<&'a Variable>,
}

/// Divides the environment.
pub(super) fn divide(variables: &[Variable]) -> Result<Environment<'_>, Problem> {
    let mut environment = Environment::default();
    for variable in variables {
        if !variable.value.reveal().chars().any(|c| c.is_control() && c != '\t') {
            environment.file.push(variable);
        } else if STEERING.iter().any(|p| variable.name.as_str().starts_with(p)) {
            return Err(Problem::refused(
                format!("environment variable {}", variable.name),
                "has a line break or another control character in its value, and a name that \
                 systemd-nspawn or a library of its reads; choose another name or put the value \
                 in a file",
            ));
        } else {
            environment.inherited.push(variable);
        }
    }
    Ok(environment)
}

/// The settings file's text.
fn text(variables: &[&Variable]) -> String {
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
pub(super) fn write(machine: &MachineName, variables: &[&Variable]) -> Result<(), Problem> {
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
        assert_eq!(text(&[&one]), "[Exec]\nEnvironment=\"A=say \"'\"'\"hi\"'\"'\" \\ $X %n \"\n");
    }

    #[test]
    fn line_breaks_take_the_other_way_unless_the_name_steers() {
        let all = [variable("A", "x"), variable("B", "x\ny"), variable("LD_PRELOAD", "/x")];
        let environment = divide(&all).unwrap();
        assert_eq!(environment.file.len(), 2);
        assert_eq!(environment.inherited.len(), 1);
        assert!(divide(&[variable("LD_PRELOAD", "x\ny")]).is_err());
    }
}
