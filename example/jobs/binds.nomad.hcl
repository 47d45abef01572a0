# Files of the host in both spellings: as a block and as a map. An option of systemd-nspawn may follow
# the target. Needs a policy that lists the sources (preset = "compat" allows every one).
job "binds" {
  type = "batch"

  group "binds" {
    task "block" {
      driver = "nspawn"

      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/sh", "-c", "grep -c . /host/os-release && echo kept > /data/block"]

        bind {
          "/srv/binds" = "/data"
        }

        bind_read_only {
          "/etc/os-release" = "/host/os-release"
        }
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }

    task "map" {
      driver = "nspawn"

      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/sh", "-c", "grep -c . /host/os-release && echo kept > /data/map"]

        bind = {
          "/srv/binds" = "/data:rootidmap"
        }

        bind_read_only = {
          "/etc/os-release" = "/host/os-release"
        }
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
