import CRdKafka
import Foundation
import KafkaLog

/// librdkafka's cluster inside of this process: brokers that fail when told to. Sendable because librdkafka's own lock
/// guards it.
final class MockCluster: @unchecked Sendable {
    private let client: OpaquePointer
    let cluster: OpaquePointer

    init(brokers: Int32 = 3, topics: [(String, Int32)] = [("a", 1), ("b", 3)]) throws {
        var message = [CChar](repeating: 0, count: 512)
        guard let made = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), &message, message.count),
            let cluster = rd_kafka_mock_cluster_new(made, brokers)
        else { throw TestSupportError.noBroker }
        client = made
        self.cluster = cluster
        for (name, partitions) in topics { rd_kafka_mock_topic_create(cluster, name, partitions, brokers) }
    }

    deinit {
        rd_kafka_mock_cluster_destroy(cluster)
        rd_kafka_destroy(client)
    }

    /// The mock cluster takes no administration, so its topics are there before.
    func configuration(patience: Double = 5) -> KafkaConfiguration {
        var configuration = KafkaConfiguration(
            bootstrap: String(cString: rd_kafka_mock_cluster_bootstraps(cluster)))
        configuration.createsTopics = false
        configuration.patience = patience
        configuration.settings = [("message.timeout.ms", "8000"), ("transaction.timeout.ms", "8000")]
        return configuration
    }

    /// Answers the next requests of one kind with these errors.
    func fail(_ request: Int16, _ errors: [rd_kafka_resp_err_t]) {
        var errors = errors
        rd_kafka_mock_push_request_errors_array(cluster, request, errors.count, &errors)
    }

    /// Kafka's numbers of requests. Source: Apache Kafka's protocol guide, "API keys".
    static let produce: Int16 = 0
    static let fetch: Int16 = 1
    static let addPartitions: Int16 = 24
    static let endTransaction: Int16 = 26
    static let initProducer: Int16 = 22
}
