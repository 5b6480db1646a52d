//! A gRPC client that knows nothing of our messages: it asks the server's reflection, builds
//! the request from the answer and calls. What a stock command-line client does.

use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};
use tokio_stream::once;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ErrorResponse, ServerReflectionRequest};

/// A client of `ChatRoom.Comet.Comet`.
pub struct Comet {
    channel: Channel,
    pool: DescriptorPool,
}

impl Comet {
    /// Connects and learns the service by reflection.
    pub async fn connect(addr: SocketAddr) -> Self {
        let channel = channel(addr).await;
        let mut files: Vec<FileDescriptorProto> = Vec::new();
        let mut wanted = vec![MessageRequest::FileContainingSymbol(SERVICE.to_owned())];
        while let Some(question) = wanted.pop() {
            for file in ask_files(&channel, question).await {
                if files.iter().any(|known| known.name == file.name) {
                    continue;
                }
                wanted.extend(file.dependency.iter().cloned().map(MessageRequest::FileByFilename));
                files.push(file);
            }
        }
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_protos(files).expect("reflection answers whole files");
        Self { channel, pool }
    }

    /// Calls a method; `fields` are the request's.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn call(&self, method: &str, fields: &[(&str, Value)]) -> Result<DynamicMessage, Status> {
        let service = self.pool.get_service_by_name(SERVICE).expect("the service was asked for");
        let method = service.methods().find(|known| known.name() == method).expect("the method is described");
        let request = message(method.input(), fields);
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.expect("the channel is open");
        let path = format!("/{SERVICE}/{}", method.name()).parse().expect("a path");
        let bytes: Bytes = request.encode_to_vec().into();
        let answer = client.unary(Request::new(bytes), path, Raw).await?.into_inner();
        Ok(DynamicMessage::decode(method.output(), answer).expect("the described answer"))
    }

    /// `ChatRoom.Protocol.Proto` with this body.
    pub fn proto(&self, op: i32, body: &[u8]) -> Value {
        let descriptor = self.pool.get_message_by_name("ChatRoom.Protocol.Proto").expect("it is described");
        let fields = [
            ("ver", Value::I32(1)),
            ("op", Value::I32(op)),
            ("seq", Value::I32(0)),
            ("body", Value::Bytes(Bytes::copy_from_slice(body))),
        ];
        Value::Message(message(descriptor, &fields))
    }

    /// `BroadcastRoom`.
    pub async fn broadcast_room(&self, room: &str, body: &[u8]) -> Result<(), Status> {
        let fields = [("roomId", Value::String(room.to_owned())), ("proto", self.proto(4, body))];
        self.call("BroadcastRoom", &fields).await.map(drop)
    }

    /// `Broadcast`.
    pub async fn broadcast(&self, body: &[u8]) -> Result<(), Status> {
        self.call("Broadcast", &[("protoOp", Value::I32(4)), ("proto", self.proto(0, body))]).await.map(drop)
    }

    /// `PushMsg`.
    pub async fn push(&self, users: &[&str], body: &[u8]) -> Result<(), Status> {
        let keys = users.iter().map(|user| Value::String((*user).to_owned())).collect();
        let fields = [("keys", Value::List(keys)), ("proto", self.proto(4, body))];
        self.call("PushMsg", &fields).await.map(drop)
    }

    /// `Rooms`: ids, sorted.
    pub async fn rooms(&self) -> Vec<String> {
        let answer = self.call("Rooms", &[]).await.expect("Rooms answers");
        let rooms = answer.get_field_by_name("rooms").expect("it is described").into_owned();
        let Value::Map(rooms) = rooms else { panic!("rooms is a map: {rooms:?}") };
        let mut ids: Vec<String> = rooms
            .into_iter()
            .filter(|(_, present)| present.as_bool() == Some(true))
            .map(|(id, _)| id.as_str().expect("a string key").to_owned())
            .collect();
        ids.sort();
        ids
    }
}

/// Names of all services the server describes.
pub async fn services(addr: SocketAddr) -> Vec<String> {
    let answer = ask(&channel(addr).await, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    list.service.into_iter().map(|service| service.name).collect()
}

/// An open channel.
pub async fn channel(addr: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("an address");
    endpoint.connect().await.expect("the server listens")
}

async fn ask_files(channel: &Channel, question: MessageRequest) -> Vec<FileDescriptorProto> {
    let answer = ask(channel, question).await;
    let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("{answer:?}") };
    let files = files.file_descriptor_proto.into_iter();
    files.map(|bytes| FileDescriptorProto::decode(bytes.as_slice()).expect("a file")).collect()
}

async fn ask(channel: &Channel, question: MessageRequest) -> MessageResponse {
    let mut client = ServerReflectionClient::new(channel.clone());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut answers = client.server_reflection_info(once(request)).await.expect("reflection").into_inner();
    let answer = answers.message().await.expect("reflection answers").expect("once per question");
    match answer.message_response.expect("an answer says something") {
        MessageResponse::ErrorResponse(ErrorResponse { error_message, .. }) => panic!("{error_message}"),
        answer => answer,
    }
}

fn message(descriptor: MessageDescriptor, fields: &[(&str, Value)]) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor);
    for (name, value) in fields {
        message.try_set_field_by_name(name, value.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    message
}

const SERVICE: &str = "ChatRoom.Comet.Comet";

/// Messages that are bytes already.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}
