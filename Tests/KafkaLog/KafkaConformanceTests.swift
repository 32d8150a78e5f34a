import Base
import EventLog
import Foundation
import KafkaLog
import Testing

extension HeavyTests {
    /// The same promises as the embedded log's, as far as a log on Kafka makes them, against a real broker.
    @Suite(.enabled(if: KafkaBroker.executable != nil, "needs the PyPI package noida-db in .cache/venv"), .serialized)
    struct KafkaConformanceTests {
        static let kafka: LogCapabilities = [.atomicMultiTopic, .trim, .transactions]

        @Test(arguments: logPromises.filter { kafka.isSuperset(of: $0.needs) })
        func theLogOnKafkaKeeps(promise: LogPromise) async throws {
            let broker = try KafkaBroker()
            let log = try KafkaLog.open(broker.configuration)
            defer { log.close() }
            try log.declare(TopicLayout(name: "a", partitions: 1))
            try log.declare(TopicLayout(name: "b", partitions: 3))
            #expect(log.capabilities == Self.kafka)
            try await promise.check(log)
            #expect(log.stopped == nil)
        }
    }
}
