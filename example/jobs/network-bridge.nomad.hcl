# A web server on a bridge of the node, with an address of that network. The policy must list the bridge: "bridge:br0" in [network] allow.
# Machines of that network reach it at 192.0.2.20, others at the address and port of the label.
job "network-bridge" {
  type = "service"

  group "web" {
    network {
      port "http" {
        to = 80
      }
    }

    task "web" {
      driver = "nspawn"

      config {
        image          = "busybox"
        boot           = false
        ephemeral      = true
        command        = ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/local"]
        network_bridge = "br0"
        ipv4_address   = "192.0.2.20"
        ports          = ["http"]
      }

      template {
        destination = "local/index.html"
        data        = "served on a bridge\n"
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
