import Base

/// What one client tells about itself every five seconds. Source: librdkafka's STATISTICS.md; only what people watch.
package struct KafkaStatistics: Sendable {
    package struct Broker: Sendable {
        package let name: String
        /// Seconds, averaged over the last interval; 0 before the first answer.
        package let roundTrip: Double
        package let requestsWaiting: Int64
    }

    /// Messages and bytes that wait in the client.
    package var queuedMessages: Int64 = 0
    package var queuedBytes: Int64 = 0
    package var sentMessages: Int64 = 0
    package var receivedMessages: Int64 = 0
    package var sentBytes: Int64 = 0
    package var receivedBytes: Int64 = 0
    package var brokers: [Broker] = []
    /// By topic/partition, of a consumer group: behind the committed and behind the processed offset; -1 is unknown.
    package var lag: [(partition: String, committed: Int64, stored: Int64)] = []

    init() {}

    init?(_ json: UnsafeRawBufferPointer) {
        guard let tree = try? JSON(parsing: [UInt8](json)) else { return nil }
        queuedMessages = tree["msg_cnt"]?.int ?? 0
        queuedBytes = tree["msg_size"]?.int ?? 0
        sentMessages = tree["txmsgs"]?.int ?? 0
        receivedMessages = tree["rxmsgs"]?.int ?? 0
        sentBytes = tree["tx_bytes"]?.int ?? 0
        receivedBytes = tree["rx_bytes"]?.int ?? 0
        for (_, broker) in JSON.sorted(tree["brokers"]?.object ?? [:]) {
            // A coordinator has a connection of its own to a broker that is listed anyway.
            let name = broker["nodename"]?.string ?? ""
            guard let id = broker["nodeid"]?.int, id >= 0, !brokers.contains(where: { $0.name == name }) else {
                continue
            }
            brokers.append(
                Broker(
                    name: name.isEmpty ? "\(id)" : name,
                    roundTrip: Double(broker["rtt"]?["avg"]?.int ?? 0) / 1e6,
                    requestsWaiting: broker["waitresp_cnt"]?.int ?? 0))
        }
        for (topic, entry) in JSON.sorted(tree["topics"]?.object ?? [:]) {
            for (number, partition) in JSON.sorted(entry["partitions"]?.object ?? [:]) where number != "-1" {
                let committed = partition["consumer_lag"]?.int ?? -1
                let stored = partition["consumer_lag_stored"]?.int ?? -1
                if committed >= 0 || stored >= 0 { lag.append(("\(topic)/\(number)", committed, stored)) }
            }
        }
    }
}
