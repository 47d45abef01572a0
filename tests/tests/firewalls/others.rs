//! The firewalls, one test each.

use crate::{Firewall, beside};

/// Docker sets the policy DROP where it is the one who switches forwarding on.
#[test]
fn docker_with_iptables() {
    let docker = Firewall {
        row: "Docker with iptables",
        name: "Docker",
        // Docker of Debian leaves IPv6 alone.
        published: [false, true],
        outgoing: [false, true],
        start: "set -e; mkdir -p /etc/docker
            echo '{ \"storage-driver\": \"vfs\" }' >/etc/docker/daemon.json
            sysctl -q net.ipv4.ip_forward=0; systemctl start docker.service
            iptables -S FORWARD | grep -qx -e '-P FORWARD DROP'; iptables -S DOCKER-USER",
        reload: "set -e; systemctl restart docker.service; iptables -S DOCKER-USER | grep -q nv-",
        stop: "set -e; systemctl stop docker.service docker.socket containerd.service
            ip link delete docker0",
    };
    beside(&docker, 20_101);
}

#[test]
fn firewalld() {
    let firewalld = Firewall {
        row: "firewalld",
        name: "firewalld",
        published: [true, true],
        outgoing: [false, false],
        start: "set -e; systemctl start firewalld.service; firewall-cmd --state",
        reload: "set -e; firewall-cmd --reload; systemctl reload firewalld.service
            firewall-cmd --complete-reload",
        stop: "set -e; systemctl stop firewalld.service; rm -rf /etc/firewalld/zones/*",
    };
    beside(&firewalld, 20_111);
}

#[test]
fn ufw() {
    let ufw = Firewall {
        row: "ufw",
        name: "ufw",
        published: [false, false],
        outgoing: [false, false],
        start: "set -e; ufw --force enable; ufw status | grep -q 'Status: active'",
        reload: "ufw reload",
        stop: "set -e; ufw disable; ufw --force reset",
    };
    beside(&ufw, 20_121);
}

/// A file as people write it, with the unit that Debian ships for it.
#[test]
fn a_table_of_the_operators_that_drops() {
    let table = Firewall {
        row: "nftables.conf with `policy drop` at forward",
        name: "chain forward of table inet filter",
        published: [false, false],
        outgoing: [false, false],
        start: "set -e; cat >/etc/nftables.conf <<'EOF'
#!/usr/sbin/nft -f
flush ruleset
table inet filter {
	chain input {
		type filter hook input priority filter; policy accept;
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
	}
}
EOF
            systemctl start nftables.service",
        reload: "systemctl reload nftables.service",
        stop: "set -e; systemctl stop nftables.service",
    };
    beside(&table, 20_131);
}
