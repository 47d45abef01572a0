//! Root in a container whose network namespace is its own: what it has, what it may do there, and
//! that nothing of it reaches host or neighbours.

use crate::{HOST_4, IN_LAN, address, alone, assert_same, host, page, serve, soon, task};
use nspawn_tests::Rig;
use nspawn_tests::stand::{Outcome, Running, Stand};
use serde_json::{Value, json};

/// Image `boots` boots in no time: its init is a script of its arguments. Image `tools` has what root
/// needs to change a network.
pub(crate) const IMAGES: &str = r#"set -e
cd /var/lib/machines
cp -a busybox boots; rm boots/usr/bin/init
printf '#!/bin/sh\nexec /bin/sh -c "$*"\n' >boots/usr/bin/init; chmod 755 boots/usr/bin/init
cp -a busybox tools; rm tools/usr/bin/ip
for name in nft ip perl; do
    file=$(command -v $name)
    for part in $file $(ldd $file | grep -o '/[^ ]*'); do
        mkdir -p tools${part%/*}; cp -L $part tools$part
    done
done
cp -a /usr/lib/x86_64-linux-gnu/perl-base tools/usr/lib/x86_64-linux-gnu/"#;

/// A script as root of a container that may change its network.
fn admin(script: &str) -> Value {
    // The shell of busybox would run its own.
    let mut config = task(&format!("ip() {{ /usr/sbin/ip \"$@\"; }}\n{script}"));
    config["image"] = json!("tools");
    config["capability"] = json!(["net_admin"]);
    config
}

/// The same as init of a booted container.
fn init(script: &str) -> Value {
    json!({ "image": "boots", "boot": true, "ephemeral": true, "console": "pipe", "command": [script] })
}

/// Asks the host by both families: a port that is closed answers at once, a way that is not there
/// does not.
const LOOK: &str = "set -- $(ip -4 route show default); nc -w 1 $3 9 2>&1
own=$(ip -6 -o address show dev host0 scope global | grep -o 'fd[^/]*')
nc -w 1 ${own%::*}::1 9 2>&1";

#[test]
fn the_first_instruction_has_its_network_though_it_belongs_to_the_container() {
    let (_life, stand) = host();
    let kinds = [admin(LOOK), init(LOOK)];
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let config = &kinds[thread % 2];
            scope.spawn(move || {
                for _ in 0..13 {
                    let said = stand.run(config).unwrap();
                    assert_eq!(said.stdout.matches("refused").count(), 2, "{config}: {said:?}");
                }
            });
        }
    });
}

/// What each of these commands says in a task, by lines `name: output`.
fn each(commands: &[(&str, &str)]) -> String {
    let run = |(name, command): &(&str, &str)| {
        format!("printf '%s: ' '{name}'; ({command}) >/tmp/said 2>&1; echo $? $(cat /tmp/said)\n")
    };
    commands.iter().map(run).collect()
}

fn line<'a>(said: &'a str, name: &str) -> &'a str {
    let found = said.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    found.unwrap_or_else(|| panic!("no {name} in {said}"))
}

/// What root does to its network; `nft` and the like by these names.
const POWERS: &[(&str, &str)] = &[
    ("capability", "[ $(( 0x$(grep CapEff /proc/self/status | cut -f2) >> 12 & 1 )) = 1 ]"),
    ("table", "nft add table inet own && nft list tables | grep -q 'inet own'"),
    ("link", "ip link add own0 type veth peer name own1 && ip link set own0 up"),
    ("address", "ip address add 192.0.2.7/32 dev own0"),
    ("route", "ip route add 192.0.2.0/24 dev own0"),
    ("packet", "perl -e 'socket(S, 17, 3, 0x0300) or die $!'"),
    ("raw", "perl -e 'socket(S, 2, 3, 1) or die $!'"),
    (
        "port",
        "perl -MSocket -e 'socket(S, 2, 1, 0); bind(S, sockaddr_in(80, INADDR_ANY)) or die $!'",
    ),
    ("setting", "echo 1 >/proc/sys/net/ipv4/ip_forward"),
    ("classes", "ls /sys/class/net | grep -qx host0"),
];

#[test]
fn a_command_with_the_capability_may_do_anything_to_its_network() {
    let (_life, stand) = host();
    let mut all = POWERS.to_vec();
    all.push(("ping", "busybox ping -c 1 -W 2 198.51.100.2"));
    let outcome = stand.run(&admin(&each(&all))).unwrap();
    for (name, _) in all {
        let said = line(&outcome.stdout, name);
        assert!(said.starts_with('0'), "{name}: {said}");
    }
}

#[test]
fn a_command_without_the_capability_cannot_change_its_network() {
    let (_life, stand) = host();
    let mut config = admin(&each(POWERS));
    config["capability"] = json!([]);
    let outcome = stand.run(&config).unwrap();
    for name in ["capability", "table", "link", "address", "route", "packet", "setting"] {
        let said = line(&outcome.stdout, name);
        assert!(!said.starts_with("0 ") && said != "0", "{name}: {said}");
    }
    // What every task may do.
    for name in ["port", "classes"] {
        assert!(line(&outcome.stdout, name).starts_with('0'), "{}", outcome.stdout);
    }
}

/// The operator's switch leaves the network to the host, whoever asks.
#[test]
fn the_policy_may_keep_root_of_a_container_from_its_network() {
    let (_alone, host) = alone();
    let rig = &host.stand.rig;
    rig.set_policy("[caps]\nallow = [\"net_admin\"]\n[network]\ncontainer_admin = false").unwrap();
    let looks = format!("{}{LOOK}", each(POWERS));
    let said = [admin(&looks), init(&looks)].map(|config| host.stand.run(&config).unwrap().stdout);
    rig.set_policy("[caps]\nallow = [\"net_admin\"]").unwrap();
    for said in said {
        for name in ["table", "link", "route", "packet", "setting"] {
            assert!(!line(&said, name).starts_with("0 ") && line(&said, name) != "0", "{said}");
        }
        assert_eq!(said.matches("refused").count(), 2, "it has its network: {said}");
    }
    assert_same(host);
}

/// The job's own kernel settings are there at the first instruction.
#[test]
fn kernel_settings_of_a_network_of_the_containers_are_those_of_the_job() {
    let (_life, stand) = host();
    let mut config = admin("cat /proc/sys/net/ipv4/conf/all/log_martians /proc/sys/kernel/msgmax");
    config["sysctl"] = json!({ "net.ipv4.conf.all.log_martians": "1", "kernel.msgmax": "4321" });
    assert_eq!(stand.run(&config).unwrap().stdout, "1\n4321\n");
}

/// What only the last step finds out is a refusal all the same, and the payload never runs.
#[test]
fn a_network_that_cannot_be_completed_refuses_the_start() {
    let (_alone, host) = alone();
    let mut config = admin("echo ran");
    config["sysctl"] = json!({ "net.ipv4.conf.all.log_martians": "words" });
    let refused = host.stand.refusal(&config).unwrap();
    for word in ["connect: sysctl net.ipv4.conf.all.log_martians", "does not take this value"] {
        assert!(refused.text.contains(word), "{word}: {}", refused.text);
    }
    assert!(!refused.recoverable, "{}", refused.text);
    assert_same(host);
}

/// Runs a script in a booted container, as a service of it.
fn in_container(running: &Running<'_>, script: &str) -> String {
    let machine = format!("--machine=t-{}", running.allocation.id);
    let words = ["systemd-run", "--quiet", "--wait", "--pipe", &machine, "/bin/sh", "-c", script];
    let output = running.rig().exec(&words).unwrap();
    format!("{}{}", output.text(), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_booted_system_with_networkd_keeps_its_network_and_may_do_anything_to_it() {
    let (_life, stand) = host();
    let rig = &stand.rig;
    let config = json!({
        "image": "debian", "boot": true, "ephemeral": true,
        "command": ["systemd.wants=systemd-networkd.service"],
    });
    let running = stand.start(&config, |_| {}).unwrap().unwrap();
    // Before, there is nobody to ask.
    soon("the container's bus", || {
        let machine = format!("--machine=t-{}", running.allocation.id);
        Ok(rig.exec(&["systemctl", &machine, "show-environment"])?.success())
    });
    let said = in_container(&running, "systemctl is-system-running --wait; systemctl --failed");
    assert!(said.starts_with("running\n"), "{said}");
    let said = in_container(&running, "networkctl --no-legend --no-pager list host0");
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words[1..], ["host0", "ether", "routable", "configured"], "{said}");
    let inner = address(&running);
    let says = in_container(&running, "ip -4 -o address show dev host0; ip route; ip -6 route");
    assert!(says.contains(&format!("inet {inner} peer ")), "{says}");
    assert!(says.contains("default via fe80::1"), "{says}");
    // What the image lacks.
    let leader = running.leader().unwrap();
    rig.sh(&format!(
        "set -e; to=/proc/{leader}/root/tmp/tools; mkdir -m 755 $to; cd /var/lib/machines/tools/usr
         cp bin/nft bin/busybox $to; cp lib/x86_64-linux-gnu/*.so* $to; chmod -R a+rX $to"
    ))
    .unwrap();
    let mut all = POWERS.to_vec();
    all.push(("ping", "/tmp/tools/busybox ping -c 1 -W 2 198.51.100.2"));
    let nft = "nft() { LD_LIBRARY_PATH=/tmp/tools /tmp/tools/nft \"$@\"; }\n";
    let said = in_container(&running, &format!("{nft}{}", each(&all)));
    for (name, _) in all {
        assert!(line(&said, name).starts_with('0'), "{said}");
    }
    running.stop("SIGKILL").unwrap();
}

/// Packets of ARP and of neighbour discovery that only a liar sends: the address of `$ARGV[0]` and of
/// `$ARGV[1]` are here, and so is the way to everywhere.
const LIES: &str = r#"use Socket; my ($v4, $v6) = @ARGV;
my $index = `cat /sys/class/net/host0/ifindex`; chomp $index;
my $mac = pack("H12", join "", split /:/, `cat /sys/class/net/host0/address`);
socket(A, 17, 3, 0x0608) or die "packet: $!";
my $to = pack("S n i S C C a8", 17, 0x0806, $index, 0, 0, 6, "\xff" x 6);
for my $kind (1, 2) {
    my $arp = pack("n n C C n a6 a4 a6 a4", 1, 0x800, 6, 4, $kind, $mac, inet_aton($v4), "\xff" x 6, inet_aton($v4));
    send(A, "\xff" x 6 . $mac . pack("n", 0x806) . $arp, 0, $to) or die "arp: $!";
}
socket(N, 10, 3, 58) or die "icmpv6: $!";
setsockopt(N, 41, 18, pack("i", 255)); setsockopt(N, 41, 17, pack("i", $index));
my $all = pack_sockaddr_in6(0, Socket::inet_pton(10, "ff02::1"), $index);
my $option = pack("C C a6", 2, 1, $mac);
send(N, pack("C C n N a16", 136, 0, 0, 0x20000000, Socket::inet_pton(10, $v6)) . $option, 0, $all) or die "nd: $!";
send(N, pack("C C n C C n N N", 134, 0, 0, 64, 0, 1800, 0, 0) . $option, 0, $all) or die "ra: $!";
print "sent\n";"#;

/// A liar, as root of its own network, with a script after the functions and addresses it needs:
/// `$victim` and `$victim6` of a neighbour, `$gateway` of the host.
fn liar(victim: &Running<'_>, script: &str) -> Value {
    let v4 = address(victim);
    let v6 = address_6(victim);
    let lies = LIES.replace('\'', "'\\''");
    admin(&format!(
        "victim={v4}; victim6={v6}; set -- $(ip -4 route show default); gateway=$3
         lie() {{ perl -e '{lies}' $victim $victim6; }}
         {script}"
    ))
}

fn address_6(server: &Running<'_>) -> String {
    let netns = format!("--net=/proc/{}/ns/net", server.leader().unwrap());
    let words = ["nsenter", &netns, "ip", "-6", "-br", "address", "show", "dev", "host0"];
    let line = server.rig().run(&words).unwrap();
    let own = line.split_whitespace().find(|word| word.starts_with("fd")).unwrap();
    own.split('/').next().unwrap().to_owned()
}

/// Routes of the host and whom it takes for the owners of addresses, but for how fresh that is.
fn host_view(rig: &Rig) -> String {
    rig.sh("ip route; ip -6 route show default; ip neigh show nud permanent; ip -6 neigh show nud permanent")
        .unwrap()
}

/// Runs a liar beside a neighbour: afterwards the host's view is the same, and the neighbour is
/// reached by host and local network.
fn lies_change_nothing(stand: &Stand, port: i32, script: &str) -> Outcome {
    let rig = &stand.rig;
    let victim = serve(stand, &[HOST_4], port);
    let before = host_view(rig);
    let outcome = stand.run(&liar(&victim, script)).unwrap();
    let same = || Ok(host_view(rig) == before);
    soon("the host's routes to be as before", same);
    let inner = address(&victim);
    assert!(page(rig, IN_LAN, HOST_4, port).contains("client "), "{outcome:?}");
    assert!(page(rig, &[], &inner, 80).contains("client "), "{outcome:?}");
    victim.stop("SIGKILL").unwrap();
    outcome
}

#[test]
fn root_cannot_take_a_neighbours_address_or_one_of_the_local_network() {
    let (_alone, host) = alone();
    let stand = &host.stand;
    let script = "for source in $victim 198.51.100.77 198.51.100.1 8.8.8.8; do
            ip address add $source/32 dev host0
            busybox ping -c 2 -W 1 -I $source 198.51.100.2; ip address del $source/32 dev host0
        done
        ip -6 address add $victim6/128 dev host0 nodad
        busybox ping6 -c 2 -W 1 -I $victim6 2001:db8:1::2
        busybox ping -c 1 -W 2 198.51.100.2";
    let said = lies_change_nothing(stand, 20_041, script).stdout;
    assert_eq!(said.matches("100% packet loss").count(), 5, "{said}");
    assert_eq!(said.matches(" 0% packet loss").count(), 1, "its own source passes: {said}");
    assert_same(host);
}

#[test]
fn root_cannot_redirect_anybody_by_arp_neighbour_discovery_or_router_advertisements() {
    let (_alone, host) = alone();
    let said = lies_change_nothing(&host.stand, 20_042, "lie; lie; sleep 1; lie").stdout;
    assert_eq!(said, "sent\nsent\nsent\n");
    assert_same(host);
}

#[test]
fn root_cannot_reach_the_hosts_loopback_its_ports_or_the_metadata_service() {
    let (_alone, host) = alone();
    let rig = &host.stand.rig;
    let open =
        ["systemd-run", "-q", "--unit", "open.service", "busybox", "httpd", "-f", "-p", "9996"];
    rig.run(&[&open[..], &["-h", "/etc"]].concat()).unwrap();
    soon("the host's own server", || {
        Ok(rig.exec(&["curl", "-sfm", "3", "http://127.0.0.1:9996/hostname"])?.success())
    });
    // With every route that would lead there, and the loopback link out of the way.
    let asks: String = ["127.0.0.1", "::1", "$gateway", HOST_4, "169.254.169.254"]
        .map(|at| {
            format!(
                "printf 'GET /hostname HTTP/1.0\\r\\n\\r\\n' | nc -w 1 {at} 9996 2>&1 | tail -n 1; "
            )
        })
        .concat();
    let script = format!(
        "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet; echo 1 >/proc/sys/net/ipv4/conf/host0/route_localnet
         ip link set lo down; ip address flush dev lo; ip route flush table local type local dev lo
         ip rule add priority 0 to 127.0.0.0/8 lookup main; ip route add 127.0.0.0/8 via $gateway
         ip -6 route flush table local dev lo; ip -6 route add ::1 via fe80::1 dev host0
         {asks}"
    );
    let outcome = lies_change_nothing(&host.stand, 20_043, &script);
    assert!(!outcome.stdout.lines().any(|line| line == hostname(rig)), "{outcome:?}");
    rig.run(&["systemctl", "stop", "open.service"]).unwrap();
    assert_same(host);
}

fn hostname(rig: &Rig) -> String {
    rig.sh("cat /etc/hostname").unwrap().trim().to_owned()
}

/// Whatever it does with its end, what the host has of the task goes with the task.
#[test]
fn root_that_deletes_or_hides_its_link_harms_itself_alone() {
    let (_alone, host) = alone();
    let stand = &host.stand;
    lies_change_nothing(stand, 20_044, "ip link del host0; ip link show host0");
    let nested = "cat >/tmp/nested <<'END'
        ip link set lo up; ip link set host0 up; ip address add $0/32 dev host0
        ip route add default dev host0; busybox ping -c 2 -W 1 -I $0 198.51.100.2
END
        unshare -n sh -c 'echo $$ >/tmp/pid; sleep 2; exec sh -c \"$(cat /tmp/nested)\" '$victim &
        while ! [ -s /tmp/pid ]; do :; done; ip link set host0 netns $(cat /tmp/pid); wait";
    let said = lies_change_nothing(stand, 20_045, nested).stdout;
    assert!(said.contains("100% packet loss"), "{said}");
    assert_same(host);
}
