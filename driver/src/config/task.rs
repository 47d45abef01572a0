//! A job's `config` block: its keys, and the rules beyond their types.
//!
//! The rules here are the driver's service to people: they name key, value and remedy. They guard
//! nothing; the helper judges every request again by its own policy.

use proto::limits;

use super::Problem;
use super::table::keys;
use crate::msgpack;

use super::table::Pairs;

keys! {
    /// What a job asks for.
    pub(crate) struct TaskKeys {
        /// Folder of the image by absolute path, by path below the agent's working directory or
        /// the plugin's folder, or by name in the image store.
        image: String, required;
        /// Whether the image's init is started.
        boot: bool = true;
        /// The command, or init's arguments with `boot`.
        command: Vec<String>;
        /// Whether the command runs as PID 2 below a stub init.
        process_two: bool = false;
        /// Whether changes of the image go with the task.
        ephemeral: bool = false;
        /// Environment variables; Nomad's own win.
        environment: Pairs;
        /// Whether the task gets a user namespace of its own.
        user_namespacing: bool = true;
        /// Whether the task gets a network of its own when its group has none.
        network_veth: bool = true;
    }
}

/// Rules over the keys, each with its own function.
const RULES: &[fn(&TaskKeys, &mut Vec<Problem>)] = &[image_form, start_mode, command_words];

impl TaskKeys {
    /// Reads and checks what StartTask brings; problems are added to `problems`.
    pub(crate) fn decode(bytes: &[u8], problems: &mut Vec<Problem>) -> Self {
        let value = if bytes.is_empty() {
            msgpack::Value::Nil
        } else {
            msgpack::decode(bytes).unwrap_or_else(|e| {
                problems.push(Problem::new("config", format!("cannot be read: {e}")));
                msgpack::Value::Nil
            })
        };
        let unread = problems.len();
        let keys = Self::read(value, problems);
        // Rules about a key that is missing or of the wrong type would only repeat it.
        if problems.len() == unread {
            for rule in RULES {
                rule(&keys, problems);
            }
        }
        keys
    }
}

fn image_form(keys: &TaskKeys, problems: &mut Vec<Problem>) {
    let image = keys.image.as_str();
    let example = "e.g. image = \"/var/lib/machines/debian\" or image = \"debian\"";
    let problem = |rule: &str| Problem::new("image", rule).value(image).remedy(example);
    if image.is_empty() {
        problems.push(problem("must not be empty"));
    } else if image.chars().any(char::is_control) {
        problems.push(problem("must not hold control characters"));
    } else if image.contains("://") {
        problems.push(problem("images cannot be downloaded by this version"));
    } else if image.split('/').any(|part| part == "..") {
        problems.push(problem("must not hold .. components"));
    } else if image.bytes().all(|b| b == b'/' || b == b'.') {
        problems.push(problem("the host's own root or folder is no image"));
    }
}

fn start_mode(keys: &TaskKeys, problems: &mut Vec<Problem>) {
    if keys.boot && keys.process_two {
        problems.push(
            Problem::new("process_two", "excludes boot: init must be PID 1")
                .value(true)
                .remedy("set boot = false, or remove process_two"),
        );
    }
}

fn command_words(keys: &TaskKeys, problems: &mut Vec<Problem>) {
    if keys.command.len() > limits::ARGUMENTS_MAX {
        problems
            .push(Problem::new("command", format!("at most {} words fit", limits::ARGUMENTS_MAX)));
    }
    if !keys.boot && keys.command.first().is_some_and(String::is_empty) {
        problems.push(
            Problem::new("command", "its first word is empty")
                .remedy("name the program, or remove command for the image's shell"),
        );
    }
    for (index, word) in keys.command.iter().enumerate() {
        if word.contains('\0') || word.len() > limits::ARGUMENT_MAX {
            problems.push(Problem::new(
                format!("command[{index}]"),
                format!("must be without NUL and at most {} bytes", limits::ARGUMENT_MAX),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msgpack::Value;
    use crate::msgpack::tests::encode;
    use proto::nomad::hclspec::spec::Block;

    fn decode(entries: &[(&str, Value)]) -> (TaskKeys, Vec<String>) {
        let map = Value::Map(
            entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
        );
        let mut bytes = Vec::new();
        encode(&map, &mut bytes);
        let mut problems = Vec::new();
        let keys = TaskKeys::decode(&bytes, &mut problems);
        (keys, problems.iter().map(Problem::to_string).collect())
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn the_older_drivers_defaults_hold() {
        let (keys, problems) = decode(&[("image", text("debian")), ("command", Value::Nil)]);
        assert!(problems.is_empty(), "{problems:?}");
        assert!(keys.boot && keys.user_namespacing && keys.network_veth);
        assert!(!keys.process_two && !keys.ephemeral && keys.command.is_empty());
    }

    #[test]
    fn the_schema_holds_every_key_with_its_type() {
        let Some(Block::Object(object)) = TaskKeys::schema().block else {
            panic!("not an object");
        };
        let form = |key: &str| match object.attributes[key].block.as_ref().unwrap() {
            Block::Attr(attr) => (attr.name.clone(), attr.r#type.clone(), attr.required, None),
            Block::Default(default) => {
                let block = |spec: &Option<Box<_>>| {
                    let spec: &proto::nomad::hclspec::Spec = spec.as_ref().unwrap();
                    spec.block.clone().unwrap()
                };
                let (Block::Attr(attr), Block::Literal(literal)) =
                    (block(&default.primary), block(&default.default))
                else {
                    panic!("{key}");
                };
                (attr.name, attr.r#type, attr.required, Some(literal.value))
            }
            _ => panic!("{key}"),
        };
        let own = str::to_owned;
        assert_eq!(form("image"), (own("image"), own("string"), true, None));
        assert_eq!(form("boot"), (own("boot"), own("bool"), false, Some(own("true"))));
        assert_eq!(
            form("environment"),
            (own("environment"), own("list(map(string))"), false, None)
        );
        assert_eq!(form("command").1, "list(string)");
        assert_eq!(object.attributes.len(), 8);
    }

    #[test]
    fn all_problems_come_at_once() {
        let (_, problems) = decode(&[
            ("image", text("")),
            ("process_two", Value::Bool(true)),
            ("command", Value::List(vec![text("a\0b")])),
        ]);
        assert_eq!(problems.len(), 3, "{problems:?}");
        let (_, problems) =
            decode(&[("boot", text("maybe")), ("imgae", text("debian")), ("command", text("sh"))]);
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn images_that_cannot_be_are_refused() {
        for bad in ["", "/", "//", ".", "./", "a/../b", "docker://x", "a\nb"] {
            let (_, problems) = decode(&[("image", text(bad))]);
            assert_eq!(problems.len(), 1, "{bad}: {problems:?}");
        }
        for good in ["/a", "a", "./a", "a/b", "a..b", "/var/lib/machines/x.y"] {
            assert!(decode(&[("image", text(good))]).1.is_empty(), "{good}");
        }
    }

    #[test]
    fn no_bytes_lack_the_image() {
        let mut problems = Vec::new();
        TaskKeys::decode(b"", &mut problems);
        assert_eq!(problems, [Problem::new("image", "is required")]);
    }
}
