//! The generated clients of the three services, with this client's message limits.

use inventory_sentinel::v1::{
    inventory_admin_client::InventoryAdminClient, inventory_events_client::InventoryEventsClient,
    inventory_sentinel_client::InventorySentinelClient,
};
use tonic::transport::Channel;

use crate::limits::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES};

pub(crate) fn checkout_client(channel: Channel) -> InventorySentinelClient<Channel> {
    InventorySentinelClient::new(channel)
        .max_decoding_message_size(MAX_RESPONSE_BYTES)
        .max_encoding_message_size(MAX_REQUEST_BYTES)
}

pub(crate) fn admin_client(channel: Channel) -> InventoryAdminClient<Channel> {
    InventoryAdminClient::new(channel)
        .max_decoding_message_size(MAX_RESPONSE_BYTES)
        .max_encoding_message_size(MAX_REQUEST_BYTES)
}

pub(crate) fn events_client(channel: Channel) -> InventoryEventsClient<Channel> {
    InventoryEventsClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES)
}
