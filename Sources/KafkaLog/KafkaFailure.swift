import Base
import CRdKafka
import EventLog

/// What librdkafka said, as the cause of an error of the log.
package struct KafkaFailure: Error, Sendable, CustomStringConvertible {
    /// What may be done about it.
    package enum Kind: String, Sendable {
        /// The same call may succeed later.
        case retriable
        /// The open transaction is lost; abort it and do it again.
        case abort
        /// This client is finished for good.
        case fatal
        /// The call itself was wrong or not allowed.
        case refused
    }

    package let code: Int32
    /// librdkafka's name of the code, for example `_TIMED_OUT`.
    package let name: String
    package let kind: Kind

    package var description: String { "\(name) (\(kind.rawValue))" }

    init(_ code: rd_kafka_resp_err_t, kind: Kind? = nil) {
        self.code = code.rawValue
        name = String(cString: rd_kafka_err2name(code))
        self.kind = kind ?? KafkaFailure.kind(of: code)
    }

    /// Of a code alone. Source: librdkafka 2.0.2, INTRODUCTION.md "Fatal errors" and "Transactional producer"; Apache
    /// Kafka's protocol guide for which broker errors are retriable.
    static func kind(of code: rd_kafka_resp_err_t) -> Kind {
        switch code {
        case RD_KAFKA_RESP_ERR__FATAL, RD_KAFKA_RESP_ERR__FENCED, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
            RD_KAFKA_RESP_ERR_PRODUCER_FENCED, RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
            .fatal
        case RD_KAFKA_RESP_ERR__TIMED_OUT, RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, RD_KAFKA_RESP_ERR__TRANSPORT,
            RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, RD_KAFKA_RESP_ERR__RESOLVE, RD_KAFKA_RESP_ERR__QUEUE_FULL,
            RD_KAFKA_RESP_ERR__WAIT_COORD, RD_KAFKA_RESP_ERR__RETRY, RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
            RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
            RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
            RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS, RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED,
            RD_KAFKA_RESP_ERR_NOT_CONTROLLER, RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
            RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT, RD_KAFKA_RESP_ERR__DESTROY:
            .retriable
        case RD_KAFKA_RESP_ERR__PURGE_QUEUE, RD_KAFKA_RESP_ERR__PURGE_INFLIGHT: .abort
        default: .refused
        }
    }
}

/// Turns librdkafka's answers into errors of the log: what could not be done, where, and what to do.
enum KafkaErrors {
    /// - Parameter what: the deed, as in "appending to flights/0".
    static func error(
        _ code: rd_kafka_resp_err_t, _ what: String, detail: String? = nil, kind: KafkaFailure.Kind? = nil
    ) -> EventLogError {
        let failure = KafkaFailure(code, kind: kind)
        let reason = detail ?? String(cString: rd_kafka_err2str(code))
        func make(_ name: String, _ advice: String, _ fault: Fault = .world, retriable: Bool = false) -> EventLogError {
            EventLogError(name, "\(what): \(reason)\(advice)", cause: failure, fault: fault, retriable: retriable)
        }
        switch code {
        case RD_KAFKA_RESP_ERR__FENCED, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
            RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
            return make("producer-fenced", "; another writer of the same name took over, so this one must stop")
        case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
            return make("event-too-large", "; raise max.message.bytes of the topic or send less", .caller)
        case RD_KAFKA_RESP_ERR_INVALID_RECORD:
            return make("bad-event", "; a compacted topic takes no event without a key", .caller)
        case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
            RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
            return make("unknown-topic", "; create it or declare it", .caller)
        case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR__AUTHENTICATION, RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED, RD_KAFKA_RESP_ERR__SSL,
            RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
            return make("not-authorized", "; see the security settings of the Kafka configuration")
        case RD_KAFKA_RESP_ERR__BAD_MSG, RD_KAFKA_RESP_ERR_INVALID_MSG:
            return make("rot", "; the records there do not match their checksum")
        case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE, RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
            return make("trimmed", "; those offsets were given up by retention or never were", .caller)
        default: break
        }
        switch failure.kind {
        case .retriable:
            return make("broker-unavailable", "; the brokers may come back, try again", retriable: true)
        case .abort: return make("transaction-aborted", "; nothing of it is in the log, do it again", retriable: true)
        case .fatal: return make("kafka-fatal", "; this client cannot go on, restart the node")
        case .refused: return make("kafka-error", "")
        }
    }

    /// Takes over an error object. A transaction that must be aborted is told apart from a client that is finished.
    static func error(_ object: OpaquePointer, _ what: String) -> EventLogError {
        defer { rd_kafka_error_destroy(object) }
        let kind: KafkaFailure.Kind =
            rd_kafka_error_is_fatal(object) != 0
            ? .fatal
            : rd_kafka_error_txn_requires_abort(object) != 0
                ? .abort : rd_kafka_error_is_retriable(object) != 0 ? .retriable : .refused
        let code = rd_kafka_error_code(object)
        let detail = String(cString: rd_kafka_error_string(object))
        // What a transaction met matters less than that it has to be done again; fencing is the exception.
        if kind == .abort, KafkaFailure.kind(of: code) != .fatal {
            return EventLogError(
                "transaction-aborted", "\(what): \(detail); nothing of it is in the log, do it again",
                cause: KafkaFailure(code, kind: kind), fault: .world, retriable: true)
        }
        return error(code, what, detail: detail, kind: kind)
    }
}

extension Failure where Module == EventLogModule {
    /// What Kafka says may be done about it; nil for an error that is not Kafka's.
    package var kafka: KafkaFailure? { cause as? KafkaFailure }
}
