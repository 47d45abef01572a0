//! What the node's systemd is too old for.

use std::sync::Once;

use super::node::Node;
use crate::config::Problem;

/// Refuses a value that needs a newer systemd than the node has, with both versions.
pub(crate) fn need(
    version: u32,
    key: &str,
    value: &str,
    remedy: &str,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> bool {
    if node.systemd == 0 {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            tracing::warn!(
                "the version of this node's systemd is not known; what it is too old for fails \
                 when it is started"
            );
        });
        return true;
    }
    let able = node.systemd >= version;
    if !able {
        let rule = format!("needs systemd {version}; this node runs systemd {}", node.systemd);
        problems.push(Problem::new(key, rule).value(value).remedy(remedy));
    }
    able
}
