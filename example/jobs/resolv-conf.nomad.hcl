# A whole Debian, booted, with the host's name servers: what the older nspawn driver's first example
# looked like. The name is looked up in the image store. It has a network of its own, so names
# are resolved where the host's file names servers that are not on loopback; otherwise leave resolv_conf out.
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
