# A capability beyond systemd-nspawn's own set. Needs a policy that lists it (preset = "compat" allows
# every one).
job "capability" {
  type = "batch"

  group "capability" {
    task "capability" {
      driver = "nspawn"

      config {
        image      = "busybox"
        boot       = false
        ephemeral  = true
        capability = ["CAP_NET_ADMIN"]
        command    = ["/bin/sh", "-c", "ip link add d0 type dummy && ip link show d0"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
