use super::*;
use crate::server::rabbitmq::testing::Vhost;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_link_is_made_anew_and_nothing_is_carried_over() {
    let vhost = Vhost::make().await;
    let proxy = vhost.proxy().await;
    proxy.delay(Duration::from_millis(2));
    let link = Link::open(&vhost.config_through(&proxy), "test").await.unwrap();
    let (life, channel) = (link.life().unwrap(), link.channel().await.unwrap());
    for _ in 0..3 {
        let life = link.next_life().await;
        proxy.cut();
        timeout(PATIENCE, life.ended()).await.unwrap();
        assert!(!life.is_alive());
        assert!(life.channel().await.is_err());
        timeout(PATIENCE, link.next_life()).await.unwrap();
        link.channel().await.unwrap();
    }
    assert!(!life.is_alive() && !channel.status().connected());
}

#[tokio::test]
async fn a_connection_is_given_up_by_whoever_finds_it_dead() {
    let vhost = Vhost::make().await;
    let link = vhost.link().await;
    let life = link.life().unwrap();
    life.give_up();
    assert!(link.life().is_err() || !std::ptr::eq(&*link.life().unwrap(), &*life));
    let next = timeout(PATIENCE, link.next_life()).await.unwrap();
    next.channel().await.unwrap();
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named_without_the_password() {
    let vhost = Vhost::make().await;
    let proxy = vhost.proxy().await;
    let mut config = vhost.config_through(&proxy);
    config.url = config.url.replace("amqp://guest:guest@", "amqp://somebody:secret@");
    let refused = Link::open(&config, "test").await.err().unwrap().to_string();
    assert!(refused.contains(&proxy.address().to_string()), "{refused}");
    assert!(!refused.contains("secret"), "{refused}");
    proxy.accept(false);
    assert!(Link::open(&config, "test").await.is_err());
    config.url = "http://nonsense".into();
    assert!(Link::open(&config, "test").await.err().unwrap().to_string().contains("rabbitmq.url"));
}
