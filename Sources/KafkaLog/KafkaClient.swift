import Base
import CRdKafka
import EventLog
import Foundation
import Synchronization

/// One librdkafka client with the one thread that polls it: delivery reports, statistics and errors are served there and
/// nowhere on Swift's pool. Sendable because librdkafka's calls are thread-safe and what is ours
/// is behind the locks of `state`, `polling`, `thread` and `topics`; `onRebalance` belongs to the thread that polls.
final class KafkaClient: @unchecked Sendable {
    enum Role { case producer, consumer }

    /// Who serves what comes from the library.
    enum Polling {
        /// The client's own thread.
        case own
        /// Whoever hands records over, and the client's own thread where nobody does (`help`).
        case shared
        /// The owner, who polls it anyway (a consumer group).
        case owner
    }

    /// What the client has told about itself.
    struct Report {
        var statistics = KafkaStatistics()
        /// By KafkaFailure's kind.
        var errors: [String: Int] = [:]
        /// The last words of the library, oldest first; without settings, so without secrets.
        var messages: [String] = []
        var fatal: EventLogError?
        /// The brokers know this client and will not have it, or it does not trust them.
        var refusal: EventLogError?
        /// Every connection is gone, and none came since.
        var isDown = false

        /// What says most about why nobody answers: that nobody does is known.
        var reason: String? { messages.last { !$0.contains("_ALL_BROKERS_DOWN") } ?? messages.last }
    }

    static let messageLimit = 20
    /// How long the polling thread waits for something to serve, in milliseconds.
    static let pollWait: Int32 = 100

    let name: String
    let pointer: OpaquePointer
    let queue: OpaquePointer?
    /// Held by the one thread that serves the queue just now.
    let serving = Mutex(())
    /// How often appending threads looked after the queue.
    let helps = Atomic(0)
    /// Answers that the client's own thread gives.
    let answers = Monitor<[@Sendable () -> Void]>([])
    /// Values of the settings that librdkafka must not repeat to anybody.
    private let secrets: [String]
    private let state = Mutex(Report())
    private let polling = Monitor((refusing: false, closing: false, uses: 0))
    private let thread = Mutex<BlockingThread?>(nil)
    private let topics = Mutex<[String: UInt]>([:])

    var report: Report { state.withLock { $0 } }

    /// - Parameters:
    ///   - settings: in this order, later ones win.
    init(
        _ role: Role, name: String, _ configuration: KafkaConfiguration, _ settings: [(String, String)],
        polling: Polling = .own, prepare: (OpaquePointer) -> Void = { _ in }
    ) throws(EventLogError) {
        self.name = name
        secrets = configuration.secrets
        let conf = rd_kafka_conf_new()
        var message = [CChar](repeating: 0, count: 512)
        let all =
            [
                ("client.id", "\(configuration.name)-\(name)"), ("log_level", "4"), ("log.queue", "true"),
                ("log.connection.close", "false"),
                ("statistics.interval.ms", "5000"), ("socket.keepalive.enable", "true"),
                ("socket.nagle.disable", "true"), ("reconnect.backoff.max.ms", "2000"),
            ] + configuration.settings.map { ($0.name, $0.value) }
            + [("bootstrap.servers", configuration.bootstrap)] + settings
        for (name, value) in all {
            guard rd_kafka_conf_set(conf, name, value, &message, message.count) == RD_KAFKA_CONF_OK else {
                rd_kafka_conf_destroy(conf)
                // librdkafka's text may repeat the value, which may be a secret.
                throw EventLogError(
                    "bad-kafka-setting", "librdkafka does not take the setting '\(name)' or its value; look it up")
            }
        }
        rd_kafka_conf_set_log_cb(conf) { client, _, _, text in
            guard let client, let text else { return }
            KafkaClient.of(rd_kafka_opaque(client))?.heard(String(cString: text))
        }
        rd_kafka_conf_set_error_cb(conf) { client, code, reason, opaque in
            KafkaClient.of(opaque)?.failed(rd_kafka_resp_err_t(code), reason.map { String(cString: $0) } ?? "", client)
        }
        rd_kafka_conf_set_stats_cb(conf) { _, json, length, opaque in
            guard let json, let client = KafkaClient.of(opaque) else { return 0 }
            client.measured(UnsafeRawBufferPointer(start: json, count: length))
            return 0
        }
        // A callback for each record would cost as much as handing it over; an event brings a whole batch.
        if role == .producer { rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR) }
        if let conf { prepare(conf) }
        // The handle comes first and its owner second. Nothing calls back before it is polled: log lines too are queued.
        let box = UnsafeMutablePointer<Unmanaged<KafkaClient>?>.allocate(capacity: 1)
        box.initialize(to: nil)
        rd_kafka_conf_set_opaque(conf, UnsafeMutableRawPointer(box))
        guard
            let made = rd_kafka_new(
                role == .producer ? RD_KAFKA_PRODUCER : RD_KAFKA_CONSUMER, conf, &message, message.count)
        else {
            box.deallocate()
            rd_kafka_conf_destroy(conf)
            let reason = KafkaClient.redacted(KafkaClient.first(message), secrets)
            throw EventLogError(
                "bad-kafka-setting", "librdkafka refuses the settings of the client '\(name)': \(reason)")
        }
        pointer = made
        queue = rd_kafka_queue_get_main(made)
        self.box = box
        box.pointee = Unmanaged.passUnretained(self)
        _ = rd_kafka_set_log_queue(made, nil)
        if polling != .owner { startPolling(role, polling) }
    }

    private let box: UnsafeMutablePointer<Unmanaged<KafkaClient>?>

    private static func first(_ message: [CChar]) -> String {
        String(decoding: message.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Set by a group's member before it subscribes; called on the thread that polls.
    nonisolated(unsafe) var onRebalance:
        ((rd_kafka_resp_err_t, UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?) -> Void)?

    static func rebalance(
        _ opaque: UnsafeMutableRawPointer?, _ code: rd_kafka_resp_err_t,
        _ list: UnsafeMutablePointer<rd_kafka_topic_partition_list_t>?, _ pointer: OpaquePointer?
    ) {
        guard let act = KafkaClient.of(opaque)?.onRebalance else {
            // Nobody is there to take partitions over.
            rd_kafka_assign(pointer, nil)
            return
        }
        act(code, list)
    }

    static func of(_ opaque: UnsafeMutableRawPointer?) -> KafkaClient? {
        opaque?.assumingMemoryBound(to: Unmanaged<KafkaClient>?.self).pointee?.takeUnretainedValue()
    }

    private func startPolling(_ role: Role, _ kind: Polling) {
        thread.withLock { thread in
            let (pointer, polling) = (UInt(bitPattern: pointer), polling)
            // The thread must not keep the client, which joins it when it is closed.
            thread = BlockingThread(name: "kafka-\(name)") { [unowned self] in
                let client = OpaquePointer(bitPattern: pointer)
                switch (role, kind) {
                case (.consumer, _):
                    while !polling.withLock({ $0.closing }) { rd_kafka_poll(client, KafkaClient.pollWait) }
                case (.producer, .shared): serveShared { polling.withLock { $0.closing } }
                case (.producer, _):
                    while !polling.withLock({ $0.closing }) { serve(wait: KafkaClient.pollWait) }
                }
            }
        }
    }

    private static func redacted(_ text: String, _ secrets: [String]) -> String {
        secrets.reduce(text) { $0.replacingOccurrences(of: $1, with: "…") }
    }

    func heard(_ text: String) {
        let text = KafkaClient.redacted(text, secrets)
        state.withLock {
            if $0.messages.count >= KafkaClient.messageLimit { $0.messages.removeFirst() }
            $0.messages.append(String(text.prefix(400)))
        }
    }

    func failed(_ code: rd_kafka_resp_err_t, _ reason: String, _ client: OpaquePointer?) {
        let kind = KafkaFailure.kind(of: code)
        var fatal: EventLogError?
        if code == RD_KAFKA_RESP_ERR__FATAL, let client {
            var text = [CChar](repeating: 0, count: 512)
            let origin = rd_kafka_fatal_error(client, &text, text.count)
            fatal = KafkaErrors.error(
                origin, "the Kafka client '\(name)'", detail: KafkaClient.first(text), kind: .fatal)
        }
        let refusal =
            KafkaClient.isRefusal(code, reason)
            ? KafkaErrors.error(
                code == RD_KAFKA_RESP_ERR__TRANSPORT ? RD_KAFKA_RESP_ERR__SSL : code, "the Kafka client '\(name)'",
                detail: KafkaClient.redacted(reason, secrets), kind: .refused) : nil
        state.withLock {
            $0.errors[kind.rawValue, default: 0] += 1
            if let fatal { $0.fatal = fatal }
            if let refusal { $0.refusal = refusal }
            if code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN { $0.isDown = true }
        }
        heard("\(KafkaFailure(code).name): \(reason)")
    }

    /// The brokers answered: what was said of their being gone is past.
    func answered() { state.withLock { $0.isDown = false } }

    /// Whether an error says that this client is not wanted, or does not want the brokers: then waiting changes nothing. With
    /// TLS 1.3 a client believes itself connected before its certificate is looked at, so the broker's alert comes as the end of
    /// a connection.
    static func isRefusal(_ code: rd_kafka_resp_err_t, _ reason: String) -> Bool {
        switch code {
        case RD_KAFKA_RESP_ERR__AUTHENTICATION, RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED, RD_KAFKA_RESP_ERR__SSL,
            RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
            true
        case RD_KAFKA_RESP_ERR__TRANSPORT:
            ["alert certificate", "alert bad certificate", "alert unknown ca", "alert unsupported certificate"]
                .contains { reason.contains($0) }
        default: false
        }
    }

    func measured(_ json: UnsafeRawBufferPointer) {
        guard let statistics = KafkaStatistics(json) else { return }
        state.withLock { $0.statistics = statistics }
    }

    /// Calls into librdkafka from any thread: the client is not closed under them.
    func use<R>(_ body: (OpaquePointer) throws(EventLogError) -> R) throws(EventLogError) -> R {
        try polling.withLock { state throws(EventLogError) in
            guard !state.refusing else { throw EventLogError("log-stopped", "the log is closed", fault: .world) }
            state.uses += 1
        }
        defer { polling.update { $0.uses -= 1 } }
        return try body(pointer)
    }

    /// Calls under way are to come to their end: no new one begins.
    var isRefusing: Bool { polling.withLock { $0.refusing } }

    /// Refuses new calls and waits for those under way; what they brought is still served.
    func refuse() {
        polling.update { $0.refusing = true }
        // Every call has a limit of its own.
        _ = polling.wait { $0.uses == 0 ? true : nil } as Bool?
    }

    /// librdkafka's topic object; lives as long as the client.
    func topic(_ name: String) throws(EventLogError) -> OpaquePointer {
        let found: UInt? = topics.withLock { table in
            if let known = table[name] { return known }
            guard let made = rd_kafka_topic_new(pointer, name, nil) else { return nil }
            table[name] = UInt(bitPattern: made)
            return UInt(bitPattern: made)
        }
        guard let found, let topic = OpaquePointer(bitPattern: found) else {
            throw KafkaErrors.error(rd_kafka_last_error(), "using the topic '\(name)'")
        }
        return topic
    }

    /// Everything that came from the client (messages, queues, lists) must be gone before.
    func close() {
        refuse()
        let first = polling.update { state in
            defer { state.closing = true }
            return !state.closing
        }
        guard first else { return }
        thread.withLock {
            $0?.join()
            $0 = nil
        }
        give(wait: 0)
        for address in topics.withLock({ table in
            defer { table = [:] }
            return table.values.sorted()
        }) { rd_kafka_topic_destroy(OpaquePointer(bitPattern: address)) }
        if let queue { rd_kafka_queue_destroy(queue) }
        rd_kafka_destroy(pointer)
        box.deallocate()
    }
}
