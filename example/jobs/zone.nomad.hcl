# Two tasks in a zone: they reach each other at every port, by the names of the tasks, and nobody else reaches them. No port is published. Needs
# nothing on the node but the image debian (README.md). A zone does not reach beyond its node; tasks of other groups there may be in it, too.
job "zone" {
  type = "service"

  group "shop" {
    task "db" {
      driver = "nspawn"

      config {
        image        = "debian"
        boot         = false
        ephemeral    = true
        network_zone = "backend"
        command      = ["/usr/bin/perl", "/local/db.pl"]
      }

      template {
        destination = "local/db.pl"
        data        = <<-EOF
          use Socket;
          socket(S, PF_INET, SOCK_STREAM, 0); bind(S, sockaddr_in(7000, INADDR_ANY)); listen(S, 9);
          while (accept(C, S)) { syswrite(C, "rows\n"); close C }
        EOF
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }

    task "web" {
      driver = "nspawn"

      config {
        image        = "debian"
        boot         = false
        ephemeral    = true
        network_zone = "backend"
        command      = ["/bin/bash", "-c", "while sleep 1; do cat </dev/tcp/db/7000; done"]
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}
