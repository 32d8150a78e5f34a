import Base
import CRdKafka
import Foundation
import Synchronization

/// Serving a producer's events. A record is freed by the thread that serves its delivery; where that is not the thread that
/// made it, both wait for each other in malloc, which costs plain librdkafka programs a quarter of their speed. So
/// appending threads serve while they append, and the client's own thread does where nobody appends.
extension KafkaClient {
    /// After so long without an appending thread the client's own thread takes over, in seconds.
    private static let patience = 0.005

    /// Serves the next event, if one comes in time. Callers hold `serving` or are the only thread.
    @discardableResult
    func serve(wait milliseconds: Int32) -> Bool {
        guard let event = rd_kafka_queue_poll(queue, milliseconds) else { return false }
        take(event)
        rd_kafka_event_destroy(event)
        return true
    }

    /// Serves what has come, from a thread that appends.
    /// - Parameter wait: milliseconds to wait for the first event.
    func help(wait: Int32 = 0) {
        helps.add(1, ordering: .relaxed)
        serving.withLockIfAvailable { _ in
            guard serve(wait: wait) else { return }
            while serve(wait: 0) {}
        }
        wakeAnswering()
    }

    /// Has the client's own thread give an answer: nobody's code runs inside his call to append. That thread looks for it
    /// after `wakeAnswering`: one wake for each of the many batches that a single event reports would cost more than serving
    /// them.
    func answer(_ body: @escaping @Sendable () -> Void) { answers.withLock { $0.append(body) } }

    func wakeAnswering() {
        if answers.withLock({ !$0.isEmpty }) { answers.update { _ in } }
    }

    func serveShared(until isClosing: () -> Bool) {
        var seen = helps.load(ordering: .relaxed)
        var since = DispatchTime.now().uptimeNanoseconds
        var isAlone = true
        while !isClosing() {
            give(wait: isAlone ? 0 : KafkaClient.patience)
            let now = DispatchTime.now().uptimeNanoseconds
            let helped = helps.load(ordering: .relaxed)
            if helped != seen {
                (seen, since) = (helped, now)
                isAlone = false
            } else if Double(now - since) > KafkaClient.patience * 1e9 {
                isAlone = true
                serving.withLock { _ in _ = serve(wait: KafkaClient.pollWait) }
            }
        }
        serving.withLock { _ in while serve(wait: 0) {} }
        give(wait: 0)
    }

    func give(wait seconds: Double) {
        let ready = answers.wait(seconds: seconds) { list -> [@Sendable () -> Void]? in
            guard !list.isEmpty else { return nil }
            defer { list = [] }
            return list
        }
        for answer in ready ?? [] { answer() }
    }

    /// With deliveries, everything else comes as an event, too.
    private func take(_ event: OpaquePointer) {
        switch rd_kafka_event_type(event) {
        case RD_KAFKA_EVENT_DR: Delivery.report(event)
        case RD_KAFKA_EVENT_ERROR:
            let reason = rd_kafka_event_error_string(event).map { String(cString: $0) } ?? ""
            // Of a fatal error, the client itself knows the origin.
            let isFatal = rd_kafka_event_error_is_fatal(event) != 0
            failed(isFatal ? RD_KAFKA_RESP_ERR__FATAL : rd_kafka_event_error(event), reason, pointer)
        case RD_KAFKA_EVENT_STATS:
            guard let text = rd_kafka_event_stats(event) else { return }
            measured(UnsafeRawBufferPointer(start: text, count: strlen(text)))
        case RD_KAFKA_EVENT_LOG:
            var (facility, text, level): (UnsafePointer<CChar>?, UnsafePointer<CChar>?, Int32) = (nil, nil, 0)
            guard rd_kafka_event_log(event, &facility, &text, &level) == 0, let text else { return }
            heard(String(cString: text))
        default: return
        }
    }
}
