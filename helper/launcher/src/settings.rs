//! The job's environment, the payload's ids and its capabilities, which no option of systemd-nspawn
//! can spell in full, on their way into the container, off every command line.
//!
//! Both are written as the configuration of an OCI bundle (`config.json`) that holds nothing else,
//! in a directory that only this task's mount namespace has. JSON can spell every character, so
//! each value arrives byte for byte; no variable enters systemd-nspawn's own environment, so none
//! can steer it or its libraries. With a bundle, systemd-nspawn reads no other settings file
//! (load_settings() of nspawn.c); `--settings=no` would turn off the bundle too.

use std::fmt::Write as _;

use proto::capability::Capabilities;
use proto::task_spec::Variable;

use super::stage::OwnPath;
use super::step::{At as _, Problem};
use super::user::Credentials;

/// Writes the bundle. Needs [`super::namespaces::private_runtime`] before it.
pub(super) fn write(
    variables: &[Variable],
    user: Option<&Credentials>,
    bounding: Capabilities,
) -> Result<(), Problem> {
    for variable in variables {
        if variable.value.reveal().chars().any(is_noncharacter) {
            let reason = "holds a Unicode noncharacter (U+FDD0 to U+FDEF, or one that ends in \
                          FFFE or FFFF), which systemd does not take; put the value in a file";
            return Err(Problem::refused(
                format!("environment variable {}", variable.name),
                reason,
            ));
        }
    }
    let bundle = OwnPath::bundle();
    bundle.make_dir(0o700)?;
    bundle.join("config.json").write_new(text(variables, user, bounding).as_bytes())
}

/// Takes the bundle away.
pub(super) fn remove() -> Result<(), Problem> {
    let bundle = OwnPath::bundle();
    let config = bundle.join("config.json");
    config.remove_file().at(config)?;
    bundle.remove_dir().at(bundle)
}

/// Whether systemd calls it no valid character (unichar_is_valid() of utf8.c).
fn is_noncharacter(c: char) -> bool {
    matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe
}

/// The configuration's text (OCI runtime specification 1.0.0).
///
/// No capability is inheritable: by default systemd-nspawn makes all of the bounding set so, and a
/// file whose own inheritable set holds some then gives them to any user who executes it
/// (capabilities(7)). An option for capabilities would make it skip these (merge_settings() of
/// nspawn.c), and without `bounding` a user other than root had an empty bounding set.
fn text(variables: &[Variable], user: Option<&Credentials>, bounding: Capabilities) -> String {
    let bounding: Vec<String> = bounding.names().map(|name| format!("\"{name}\"")).collect();
    let mut text = format!(
        r#"{{"ociVersion":"1.0.0","process":{{"capabilities":{{"bounding":[{}],"inheritable":[]}},"#,
        bounding.join(",")
    );
    if let Some(Credentials { uid, gid, groups, .. }) = user {
        // Writing to a String cannot fail.
        write!(text, r#""user":{{"uid":{uid},"gid":{gid},"additionalGids":{groups:?}}},"#).ok();
    }
    text.push_str(r#""env":["#);
    let home = user.map(|user| user.home.to_string());
    // systemd-nspawn sets them for a user that it finds itself. The job's own win.
    let defaults = user.zip(home.as_deref()).into_iter().flat_map(|(user, home)| {
        [("HOME", home), ("USER", user.name.as_str()), ("LOGNAME", user.name.as_str())]
    });
    let is_jobs = |name: &str| variables.iter().any(|variable| variable.name.as_str() == name);
    let all = defaults
        .filter(|(name, _)| !is_jobs(name))
        .chain(variables.iter().map(|variable| (variable.name.as_str(), variable.value.reveal())));
    for (index, (name, value)) in all.enumerate() {
        text.push_str(if index == 0 { "\"" } else { ",\"" });
        text.push_str(name);
        text.push('=');
        spell(value, &mut text);
        text.push('"');
    }
    text.push_str("]}}");
    text
}

/// Writes a value as the inside of a JSON string.
fn spell(value: &str, text: &mut String) {
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            ' '..='~' => text.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(text, "\\u{unit:04x}").ok();
                }
            }
        }
    }
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
    fn every_character_is_spelled() {
        let all = [variable("A", "say \"hi\" \\ $X\r\n\u{7f}"), variable("B", "é🦀")];
        let some = Capabilities::of_mask(0b11);
        assert_eq!(
            text(&all, None, some),
            concat!(
                r#"{"ociVersion":"1.0.0","process":{"capabilities":{"#,
                r#""bounding":["CAP_CHOWN","CAP_DAC_OVERRIDE"],"inheritable":[]},"#,
                r#""env":["A=say \"hi\" \\ $X\u000d\u000a\u007f","#,
                r#""B=\u00e9\ud83e\udd80"]}}"#
            )
        );
        let nothing = text(&[], None, Capabilities::default());
        assert!(nothing.contains(r#"{"bounding":[],"inheritable":[]},"env":[]}}"#), "{nothing}");
    }

    #[test]
    fn the_jobs_own_variables_win_over_those_of_the_user() {
        let user = Credentials {
            uid: 7,
            gid: 8,
            groups: vec![9, 10],
            name: "app".to_owned(),
            home: proto::path::Absolute::parse("/srv").unwrap(),
        };
        assert_eq!(
            text(&[variable("HOME", "/x")], Some(&user), Capabilities::default()),
            concat!(
                r#"{"ociVersion":"1.0.0","process":{"capabilities":{"bounding":[],"inheritable":[]},"#,
                r#""user":{"uid":7,"gid":8,"#,
                r#""additionalGids":[9, 10]},"env":["USER=app","LOGNAME=app","HOME=/x"]}}"#
            )
        );
    }

    #[test]
    fn noncharacters_are_refused_by_name() {
        for c in ["\u{fffe}", "\u{fdd0}", "\u{1ffff}"] {
            let problem =
                format!("{:?}", write(&[variable("ODD", c)], None, Capabilities::ALL).unwrap_err());
            assert!(problem.contains("variable ODD"), "{problem}");
        }
    }
}
