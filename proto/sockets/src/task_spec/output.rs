//! Where a task's output goes, and the fields that its journal lines carry.

use bincode::{Decode, Encode};

use crate::limits;
use crate::name::{Checked, is_made_of, require, text_name};

fn check_label_name(text: &str) -> Checked {
    require((1..=64).contains(&text.len()), "1 to 64 bytes")?;
    let is_upper = !text.bytes().any(|b| b.is_ascii_lowercase());
    let rule = "capital letters, digits and _ only (systemd.journal-fields(7))";
    require(is_upper && is_made_of(text, "_"), rule)?;
    require(text.starts_with(|c: char| c.is_ascii_uppercase()), "must begin with a letter")?;
    const RESERVED: [&str; 10] = [
        "NOMAD_",
        "NSPAWN_",
        "MESSAGE",
        "PRIORITY",
        "CODE_",
        "SYSLOG_",
        "UNIT",
        "USER_",
        "COREDUMP_",
        // journalctl -u takes root's lines with OBJECT_SYSTEMD_UNIT= for the unit's.
        "OBJECT_",
    ];
    let rule = "must not begin as a field of systemd's or of this driver's does";
    require(!RESERVED.iter().any(|prefix| text.starts_with(prefix)), rule)
}

fn check_label_value(text: &str) -> Checked {
    require(text.len() <= limits::VALUE_MAX, "at most 255 bytes")?;
    // PID 1 writes a field without quotes: when it reads its units again, each word is one of its
    // own.
    let splits = text.split(' ').skip(1).any(|word| word.contains('='));
    require(!splits, "no = behind a blank")?;
    require(is_made_of(text, " ._:/@+,=-"), "letters, digits, blanks and ._:/@+,=- only")
}

text_name!(
    /// Name of a journal field.
    LabelName, "label name", check_label_name
);
text_name!(
    /// Value of a journal field.
    LabelValue, "label value", check_label_value
);

/// A journal field on every line of the task.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Label {
    /// Its name.
    pub name: LabelName,
    /// Its value.
    pub value: LabelValue,
}

impl Label {
    /// Bytes of the field `NAME=VALUE`.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.name.as_str().len() + 1 + self.value.as_str().len()
    }
}

/// Where the two output streams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Logs {
    /// To Nomad's FIFOs `.<task>.stdout.fifo` and `.<task>.stderr.fifo` in the log directory.
    Fifos,
    /// Nowhere: to the null device.
    Discard,
    /// To the host's journal: standard output with priority info, standard error with err.
    Journal,
    /// To the host's journal as with [`Self::Journal`], and to Nomad's FIFOs.
    Both,
    /// The booted container's own journal to Nomad's FIFOs; its console goes to the host's journal.
    /// systemd-journald in the container forwards it in the syslog protocol (journald.conf(5)).
    Container {
        /// Lines at or above this priority go to standard error (syslog(3): 0 to 7).
        priority: u8,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_of_a_label_is_another_field() {
        for good in ["", "blue, 50:50 @home", "a=b=c", "a=b c", " x", "x "] {
            assert!(LabelValue::new(good).is_ok(), "{good:?}");
        }
        for bad in
            ["x OBJECT_SYSTEMD_UNIT=ssh.service", " NOMAD_TASK_NAME=y", "a  b=c", "a\tb", "é"]
        {
            assert!(LabelValue::new(bad).is_err(), "{bad:?}");
        }
    }
}
