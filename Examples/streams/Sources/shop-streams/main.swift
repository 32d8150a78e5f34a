import Headrace
import StreamExamples

// One node: shop-streams start --workspace Examples/streams/shop. Several, on Kafka: add --kafka HOST:PORT, and start as many of
// shop-streams work --kafka HOST:PORT --data DIRECTORY beside it as there shall be.
await Headrace.main(streams: [ShopStreams.visits])
