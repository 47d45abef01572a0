//! go-plugin's own services. Only Shutdown does anything.

use std::sync::Arc;
use std::time::Duration;

use nomad_proto::health::health_check_response::ServingStatus;
use nomad_proto::health::health_server::Health;
use nomad_proto::health::{HealthCheckRequest, HealthCheckResponse};
use nomad_proto::plugin::grpc_broker_server::GrpcBroker;
use nomad_proto::plugin::grpc_controller_server::GrpcController;
use nomad_proto::plugin::grpc_stdio_server::GrpcStdio;
use nomad_proto::plugin::{ConnInfo, Empty, StdioData};
use tokio::sync::Notify;
use tokio_stream::Pending;
use tonic::{Request, Response, Status, Streaming};

/// Time for the answer to Shutdown to leave; the agent kills after two seconds.
const FAREWELL: Duration = Duration::from_millis(100);

/// GRPCController.
#[derive(Debug)]
pub(super) struct Controller {
    stop: Arc<Notify>,
}

impl Controller {
    pub(super) fn new(stop: Arc<Notify>) -> Self {
        Self { stop }
    }
}

#[tonic::async_trait]
impl GrpcController for Controller {
    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        let stop = Arc::clone(&self.stop);
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            stop.notify_one();
        });
        Ok(Response::new(Empty {}))
    }
}

/// GRPCBroker: a stream for connections in the other direction, which this plugin never needs.
#[derive(Debug)]
pub(super) struct Broker;

#[tonic::async_trait]
impl GrpcBroker for Broker {
    type StartStreamStream = Pending<Result<ConnInfo, Status>>;

    async fn start_stream(
        &self,
        _: Request<Streaming<ConnInfo>>,
    ) -> Result<Response<Self::StartStreamStream>, Status> {
        Ok(Response::new(tokio_stream::pending()))
    }
}

/// GRPCStdio: a stream for captured output, of which there is none.
#[derive(Debug)]
pub(super) struct Stdio;

#[tonic::async_trait]
impl GrpcStdio for Stdio {
    type StreamStdioStream = Pending<Result<StdioData, Status>>;

    async fn stream_stdio(
        &self,
        _: Request<()>,
    ) -> Result<Response<Self::StreamStdioStream>, Status> {
        Ok(Response::new(tokio_stream::pending()))
    }
}

/// Health: this process serves as long as it answers.
#[derive(Debug)]
pub(super) struct Alive;

fn status(service: &str) -> Result<HealthCheckResponse, Status> {
    match service {
        "" | "plugin" => Ok(HealthCheckResponse { status: ServingStatus::Serving.into() }),
        other => Err(Status::not_found(format!("no service {other}"))),
    }
}

#[tonic::async_trait]
impl Health for Alive {
    type WatchStream = tokio_stream::wrappers::ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        status(&request.into_inner().service).map(Response::new)
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let first = status(&request.into_inner().service)?;
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            if sender.send(Ok(first)).await.is_ok() {
                sender.closed().await;
            }
        });
        Ok(Response::new(receiver.into()))
    }
}
