# A web server in Nomad's own bridge network, in its own user namespace. Needs Nomad's CNI plugins on the node.
job "web" {
  type = "service"

  group "web" {
    network {
      mode = "bridge"
      port "http" {
        to = 80
      }
    }

    task "web" {
      driver = "nspawn"

      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/local"]
      }

      template {
        destination = "local/index.html"
        data        = "served from a container\n"
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
