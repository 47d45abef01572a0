# A booted Debian that gets its address by DHCP from systemd-networkd of the node, as with the older driver. The node needs
# systemd-networkd, the image a DHCP client (here systemd-networkd), and the policy "container" in [network] allow.
job "network-container" {
  type = "service"

  group "system" {
    task "debian" {
      driver = "nspawn"

      config {
        image         = "debian"
        ephemeral     = true
        command       = ["systemd.wants=systemd-networkd.service"]
        network_setup = "container"

        ready {
          mode    = "network"
          timeout = "1m"
        }
      }

      resources {
        cpu    = 100
        memory = 128
      }
    }
  }
}
