# A capability beyond systemd-nspawn's own set: bit 14 is IPC_LOCK. Needs [caps] allow = ["ipc_lock"] in the policy
# file (preset = "compat" allows every one).
job "capability" {
  type = "batch"

  group "capability" {
    task "capability" {
      driver = "nspawn"

      config {
        image      = "busybox"
        boot       = false
        ephemeral  = true
        capability = ["CAP_IPC_LOCK"]
        command    = ["/bin/sh", "-c", "echo $((0x$(sed -n 's/CapEff:.//p' /proc/self/status) >> 14 & 1))"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
