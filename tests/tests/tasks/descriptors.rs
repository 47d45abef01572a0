//! The check that every test relies on does see descriptors that the driver keeps.

use crate::work::{Host, LIMIT};
use nspawn_tests::world::Class;
use nspawn_tests::{World, wait};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Connections to the plugin's own socket that say nothing.
const CONNECT: &str = r#"
$SIG{ALRM} = "DEFAULT"; alarm 60;
for my $path (glob "/run/nomad-nspawn-plugin/*/plugin.sock") {
    for (1..6) {
        socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die;
        push @keep, $s if connect($s, sockaddr_un($path));
    }
}
@keep or die "no plugin answers";
sleep 60;
"#;

#[test]
fn descriptors_that_the_driver_keeps_are_found() {
    let host = Host::alone();
    let before = World::snapshot(&host).unwrap();
    let mut client = host.command(&["perl", "-MSocket", "-e", CONNECT]);
    let mut client = client.process_group(0).spawn().unwrap();
    let found = wait::true_within("the driver's descriptors to be found", LIMIT, || {
        let found = before.diff(&World::snapshot(&host)?);
        Ok(found.iter().any(|d| d.added && d.class == Class::OpenFd && d.what.contains("driver")))
    });
    let group = format!("-{}", client.id());
    assert!(Command::new("kill").args(["-KILL", "--", &group]).status().unwrap().success());
    client.wait().unwrap();
    found.unwrap();
    before.assert_same(&host).unwrap();
}
