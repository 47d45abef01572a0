# A whole Debian, booted, with the host's name servers: what the older nspawn driver's first example
# looked like. The name is looked up in the image store. The task has loopback alone: give the group a
# network { mode = "bridge" } for names to be resolved.
job "resolv-conf" {
  type = "service"

  group "linux" {
    task "debian" {
      driver = "nspawn"

      config {
        image       = "debian"
        ephemeral   = true
        resolv_conf = "copy-host"
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }
}
