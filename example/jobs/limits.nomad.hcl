# What a task may use, and what becomes of it beyond that. The policy file must allow swap:
#   [limits]
#   swap = "64m"
job "limits" {
  type = "batch"

  group "limits" {
    task "limits" {
      driver = "nspawn"

      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/sh", "-c", "cat /proc/self/oom_score_adj; cat /sys/fs/cgroup/memory.max"]

        memory_swap    = "64m" # none without it
        cpu_hard_limit = true  # never more than its share, also on an idle node
        pids_limit     = 100
        io_weight      = 50
        oom_score_adj  = 200    # before other programs of the host, when its memory runs out
        oom            = "task" # the whole task ends when the kernel kills one of its processes
        egress         = ["deny", "10.0.0.0/8"]

        properties {
          MemoryHigh = "48m" # slower above it, before the hard limit
        }
      }

      resources {
        cpu        = 200
        memory     = 32
        memory_max = 64
      }
    }
  }
}
