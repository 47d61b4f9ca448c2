//! The embedded bus between processes, and within one, where it is a call.

use super::*;
use crate::server::events::{EmbeddedBus, EventTail};
use crate::server::sqlite::testing::TempDatabase;

pub(super) struct Sqlite {
    file: TempDatabase,
}

#[async_trait]
impl Backend for Sqlite {
    // A data directory has no more.
    const GATEWAYS: usize = 1;

    async fn fresh() -> Self {
        Self { file: TempDatabase::new() }
    }

    async fn bus(&self) -> Arc<dyn EventBus> {
        Arc::new(EmbeddedBus::new(self.file.open_again(), None))
    }

    async fn source(&self) -> Box<dyn EventSource> {
        Box::new(EventTail::open(self.file.open_again()).await.unwrap())
    }

    async fn overrun(&self, bus: &dyn EventBus) -> Vec<Event> {
        bus.publish(events(1, 1, 4)).await.unwrap();
        // As the bus does when a hundred thousand wait.
        let delete = self.file.open_again();
        delete.write(|connection| connection.execute("DELETE FROM events WHERE id <= 6", [])).await.unwrap();
        events(1, 3, 4)
    }
}

#[tokio::test]
async fn within_a_process() {
    let file = TempDatabase::new();
    let gateway = Arc::new(Recorder::default());
    let sink: Arc<dyn EventSink> = gateway.clone();
    bus::hand_over(&EmbeddedBus::new(file.open_again(), Some(sink)), &[&gateway]).await;
}
