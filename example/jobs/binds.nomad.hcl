# Binds in both spellings: as a block and as a map. Names in a block must be identifiers (HCL), so a
# path needs the map; a relative source is below the task's directory. An option of systemd-nspawn may
# follow the target. No symbolic link is followed. A writable source keeps its owners inside only
# below a directory that is root's alone (/srv/binds with mode 0700 here). The policy file must list the
# sources (preset = "compat" allows every one): [binds] read_only = ["/usr/lib/os-release"] and
# read_write = ["/srv/binds"].
job "binds" {
  type = "batch"

  group "binds" {
    task "block" {
      driver = "nspawn"

      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/sh", "-c", "echo kept > /data/x && cat /host/x && ! rm /host/x"]

        bind {
          local = "/data"
        }

        bind_read_only {
          local = "/host"
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
          "/srv/binds/data" = "/data:rootidmap"
        }

        bind_read_only = {
          "/usr/lib/os-release" = "/host/os-release"
        }
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
