# A task that counts as started when a command in it succeeds, with a template whose change runs a
# script in it. Consul's script checks run their command the same way:
#
#   service {
#     provider = "consul"
#     check {
#       type     = "script"
#       task     = "web"
#       command  = "/bin/sh"
#       args     = ["-c", "wget -q -O /dev/null http://127.0.0.1:8080/"]
#       interval = "10s"
#       timeout  = "2s"
#     }
#   }
#
# The template waits for its variable: nomad var put nomad/jobs/ready-command greeting=hello
# Look around in it: nomad alloc exec -task web -job ready-command /bin/sh

job "ready-command" {
  group "web" {
    task "web" {
      driver = "nspawn"

      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/sh", "-c", "sleep 1; exec httpd -f -p 127.0.0.1:8080 -h /local"]

        ready {
          mode     = "exec"
          command  = ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/greeting"]
          interval = "1s"
          timeout  = "30s"
        }
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/ready-command\" }}{{ .greeting }}{{ end }}\n"
        destination = "local/greeting"
        change_mode = "script"

        change_script {
          command = "/bin/sh"
          args    = ["-c", "cat /local/greeting >> /alloc/data/greetings"]
          timeout = "5s"
        }
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
