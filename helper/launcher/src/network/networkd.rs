//! The link's addresses in the words of systemd-networkd, for a booted image that runs it.
//!
//! Without this file networkd takes the addresses away, or waits for others: it uses the one it
//! ships for containers (80-container-host0.network), which asks for DHCP. An image without
//! networkd ignores it.

use std::fmt::Write as _;

use proto::link::Link;
use proto::plan::{NetworkOwner, Plan, PlannedNetwork};
use proto::target::Target;
use proto::task_spec::Payload;

use super::link::{GATEWAY, TASK_END};
use crate::prepared::{Extras, MountTarget};
use crate::stage::OwnPath;
use crate::step::{At, Problem};

/// Where networkd finds it: before the image's own files, which sort after a name with 00.
const DIRECTORY: &str = "/run/systemd/network";
const NAME: &str = "00-nomad-nspawn.network";

/// Shows a booted image the file, where its root may change the network.
pub(crate) fn prepare(plan: &Plan, extras: &mut Extras) -> Result<(), Problem> {
    let PlannedNetwork::Private { link, owner: NetworkOwner::Container, .. } = &plan.network else {
        return Ok(());
    };
    if !matches!(plan.payload, Payload::Boot { .. }) {
        return Ok(());
    }
    let directory = OwnPath::on_stage("networkd");
    directory.make_dir(0o755)?;
    let file = directory.join(NAME);
    file.write_new(text(link).as_bytes())?;
    file.set_mode(0o644).at(&file)?;
    // Container root's, who may change its network.
    for own in [&directory, &file] {
        own.set_owner(Some(plan.container_root())).at(own)?;
    }
    extras.runtime_directory("/run/systemd");
    let target = Target::parse(DIRECTORY).map_err(|e| Problem::refused(DIRECTORY, e))?;
    extras.bind(directory, &MountTarget::Free(target));
    Ok(())
}

/// The file (systemd.network(5); what version 252 has).
pub(super) fn text(link: &Link) -> String {
    let (task, gateway) = (link.v4.task, link.v4.gateway);
    // IPv6 is off on the link of a host without it; networkd would switch it on.
    let own = if link.v6.is_some() { "ipv6" } else { "no" };
    let mut text = format!(
        "# The network that nomad-driver-nspawn has given this task, which is complete already.\n\
         [Match]\nName={TASK_END}\n\n\
         [Network]\nLinkLocalAddressing={own}\nIPv6AcceptRA=no\nKeepConfiguration=yes\n\n\
         [Address]\nAddress={task}/32\nPeer={gateway}/32\n\n\
         [Route]\nGateway={gateway}\n"
    );
    if let Some(v6) = &link.v6 {
        // Writing to a String cannot fail.
        write!(
            text,
            "\n[Address]\nAddress={}/128\nDuplicateAddressDetection=none\n\n\
             [Route]\nGateway={GATEWAY}\n",
            v6.task
        )
        .ok();
    }
    text
}
