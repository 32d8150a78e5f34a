import Base
import CRdKafka
import EventLog
import Foundation

/// Shares tasks out among the nodes of a cluster: a partition of a topic stands for a task, and a consumer group's brokers
/// decide whose it is, moving partitions one by one (cooperatively) as nodes come and go. Nothing is read from them here.
/// What is lost in order is given up before anybody gets it; what a node loses because it was silent, others have by then,
/// and the names of its transactions fence it off.
package final class TaskGroup: Sendable {
    package enum Change: Sendable {
        case gained([TopicPartition])
        /// Others get them when the call returns.
        case revoked([TopicPartition])
        /// Others have them already.
        case taken([TopicPartition])
    }

    /// How long a node may be silent before its tasks go to others, and how often it says that it lives, in milliseconds,
    /// unless the settings say otherwise. Kafka's brokers allow no less than 6 s unless they are told to.
    private static let defaults = [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")]
    /// How long one look for news may take, in milliseconds.
    private static let pollWait: Int32 = 100

    private struct State {
        var assigned: Set<TopicPartition> = []
        var rebalances = 0
        var failure: EventLogError?
        var closing = false
    }

    private let state = Monitor(State())
    private let client: KafkaClient
    private let thread = Monitor<BlockingThread?>(nil)

    package var assigned: [TopicPartition] { state.withLock { $0.assigned.sorted() } }
    package var rebalances: Int { state.withLock { $0.rebalances } }
    /// Why it has stopped; nil while it runs.
    package var failure: EventLogError? { state.withLock { $0.failure } }

    /// - Parameters:
    ///   - name: of the group, behind the log's own name.
    ///   - member: how the brokers' tools name this node among the group's members; where it is reached.
    ///   - topics: of which every partition is a task.
    ///   - change: called on the group's thread, which says that the node lives between two calls: no longer than minutes.
    package init(
        _ configuration: KafkaConfiguration, name: String, member: String, topics: [String],
        change: @escaping @Sendable (Change) -> Void
    ) throws(EventLogError) {
        let settings =
            KafkaLog.readerSettings + [
                ("group.id", "\(configuration.name).\(name)"), ("partition.assignment.strategy", "cooperative-sticky"),
                ("client.id", "\(configuration.name)-\(name)@\(member)"),
            ] + Self.defaults.filter { setting in !configuration.settings.contains { $0.name == setting.0 } }
        client = try KafkaClient(.consumer, name: name, configuration, settings, polling: .owner) {
            rd_kafka_conf_set_rebalance_cb($0) { pointer, code, list, opaque in
                KafkaClient.rebalance(opaque, code, list, pointer)
            }
        }
        rd_kafka_poll_set_consumer(client.pointer)
        let (client, state) = (client, state)
        client.onRebalance = { code, list in
            Self.rebalance(client, state, code, list, change)
        }
        let list = rd_kafka_topic_partition_list_new(Int32(topics.count))
        defer { rd_kafka_topic_partition_list_destroy(list) }
        for topic in topics { rd_kafka_topic_partition_list_add(list, topic, -1) }
        let code = rd_kafka_subscribe(client.pointer, list)
        guard code == RD_KAFKA_RESP_ERR_NO_ERROR else {
            client.onRebalance = nil
            client.close()
            throw KafkaErrors.error(code, "joining the group '\(configuration.name).\(name)'")
        }
        thread.withLock {
            $0 = BlockingThread(name: "tasks") {
                while state.withLock({ !$0.closing && $0.failure == nil }) {
                    guard let message = rd_kafka_consumer_poll(client.pointer, Self.pollWait) else { continue }
                    let code = message.pointee.err
                    rd_kafka_message_destroy(message)
                    guard code != RD_KAFKA_RESP_ERR_NO_ERROR, code != RD_KAFKA_RESP_ERR__PARTITION_EOF else { continue }
                    let error = KafkaErrors.error(code, "sharing tasks out")
                    if error.kafka?.kind != .retriable { state.update { $0.failure = $0.failure ?? error } }
                }
                // Leaves the group, so that the others get the tasks at once.
                rd_kafka_consumer_close(client.pointer)
                client.onRebalance = nil
            }
        }
    }

    private static func rebalance(
        _ client: KafkaClient, _ state: Monitor<State>, _ code: rd_kafka_resp_err_t,
        _ list: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?, _ change: (Change) -> Void
    ) {
        let partitions = (0..<Int(list?.pointee.cnt ?? 0)).compactMap { index in
            list.map {
                TopicPartition(String(cString: $0.pointee.elems[index].topic), Int($0.pointee.elems[index].partition))
            }
        }
        func note(_ object: OpaquePointer?, _ what: String) {
            guard let object else { return }
            let error = KafkaErrors.error(object, what)
            state.update { $0.failure = $0.failure ?? error }
        }
        switch code {
        case RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS:
            // What comes from now on is nothing to read either.
            for index in 0..<Int(list?.pointee.cnt ?? 0) {
                list?.pointee.elems[index].offset = headrace_rd_offset_end()
            }
            note(rd_kafka_incremental_assign(client.pointer, list), "taking tasks over")
            _ = rd_kafka_pause_partitions(client.pointer, list)
            state.update { $0.assigned.formUnion(partitions) }
            if !partitions.isEmpty { change(.gained(partitions)) }
            // Who waits for the node to be given its share finds it.
            state.update { $0.rebalances += 1 }
        case RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS:
            let isLost = rd_kafka_assignment_lost(client.pointer) != 0
            if !partitions.isEmpty { change(isLost ? .taken(partitions) : .revoked(partitions)) }
            note(rd_kafka_incremental_unassign(client.pointer, list), "giving tasks up")
            state.update {
                $0.assigned.subtract(partitions)
                $0.rebalances += 1
            }
        default:
            let error = KafkaErrors.error(code, "sharing tasks out among the nodes")
            state.update { $0.failure = $0.failure ?? error }
            rd_kafka_assign(client.pointer, nil)
        }
    }

    /// Gives every task up (`change` is told) and leaves the group.
    package func close() {
        state.update { $0.closing = true }
        thread.withLock {
            $0?.join()
            $0 = nil
        }
        client.close()
    }
}
