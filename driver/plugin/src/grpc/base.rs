//! BasePlugin: name, versions and configuration.
//!
//! Nomad asks these of two short-lived processes before the real one. A configuration without
//! `nomad_config` is such a question: it is checked and nothing else happens.

use std::sync::Arc;

use nomad_proto::base::base_plugin_server::BasePlugin;
use nomad_proto::base::{
    ConfigSchemaRequest, ConfigSchemaResponse, PluginInfoRequest, PluginInfoResponse, PluginType,
    SetConfigRequest, SetConfigResponse,
};
use tonic::{Request, Response, Status};

use crate::config::plugin::PluginConfig;
use crate::config::table::Table as _;
use crate::error::Failure;
use crate::lifecycle::Driver;

/// The driver's name in jobs.
const NAME: &str = "nspawn";
/// The only version of the driver interface that Nomad has.
const API_VERSION: &str = "v0.1.0";

/// The service.
#[derive(Debug)]
pub(super) struct Base {
    driver: Arc<Driver>,
}

impl Base {
    pub(super) fn new(driver: Arc<Driver>) -> Self {
        Self { driver }
    }
}

#[tonic::async_trait]
impl BasePlugin for Base {
    async fn plugin_info(
        &self,
        _: Request<PluginInfoRequest>,
    ) -> Result<Response<PluginInfoResponse>, Status> {
        Ok(Response::new(PluginInfoResponse {
            r#type: PluginType::Driver.into(),
            plugin_api_versions: vec![API_VERSION.to_owned()],
            plugin_version: env!("CARGO_PKG_VERSION").to_owned(),
            name: NAME.to_owned(),
        }))
    }

    async fn config_schema(
        &self,
        _: Request<ConfigSchemaRequest>,
    ) -> Result<Response<ConfigSchemaResponse>, Status> {
        Ok(Response::new(ConfigSchemaResponse { spec: Some(PluginConfig::spec()) }))
    }

    async fn set_config(
        &self,
        request: Request<SetConfigRequest>,
    ) -> Result<Response<SetConfigResponse>, Status> {
        let request = request.into_inner();
        let config = PluginConfig::decode(&request.msgpack_config).map_err(Failure::permanent)?;
        let topology = request
            .nomad_config
            .as_ref()
            .and_then(|nomad| nomad.driver.as_ref())
            .and_then(|driver| driver.topology.as_ref());
        self.driver.configure(config, request.nomad_config.is_some(), topology);
        Ok(Response::new(SetConfigResponse {}))
    }
}
