# A web server in a network of its own, on a port that Nomad chooses. Needs nothing on the node but the image busybox (README.md): no CNI plugin, no bridge,
# no DHCP. It answers at the address and port of the label, and on the node itself at 127.0.0.1 and [::1] too.
job "http-port" {
  type = "service"

  group "web" {
    network {
      port "http" {
        to = 80
      }
    }

    service {
      name     = "http-port"
      provider = "nomad"
      port     = "http"

      check {
        type     = "http"
        path     = "/index.html"
        interval = "10s"
        timeout  = "2s"
      }
    }

    task "web" {
      driver = "nspawn"

      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/local"]
        ports     = ["http"]
      }

      template {
        destination = "local/index.html"
        data        = "served on a port of the host\n"
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
