import Base
import CPlatform
import EventLog
import KafkaLog

extension Node {
    /// Prometheus' text format, version 0.0.4.
    package func metrics() throws -> String {
        let fold = fold.status
        var text = ""
        func metric(_ name: String, _ kind: String, _ help: String, _ samples: [(String, Double)]) {
            text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind)\n"
            for (labels, value) in samples { text += "\(name)\(labels) \(JSON.double(value).text)\n" }
        }
        metric("headrace_log_events_total", "counter", "Events in the log.", [("", Double(log.eventCount))])
        for (name, kind, help, samples) in kafka?.metrics() ?? [] { metric(name, kind, help, samples) }
        if let statistics = embedded?.statistics { logMetrics(statistics, metric) }
        metric("headrace_fold_events_total", "counter", "Input events folded.", [("", Double(fold.folded))])
        metric("headrace_fold_emitted_total", "counter", "Events emitted by the fold.", [("", Double(fold.emitted))])
        metric(
            "headrace_fold_late_total", "counter", "Events behind their partition's progress.",
            [("", Double(fold.late))])
        metric(
            "headrace_fold_failures_total", "counter", "Events that a stage could not fold.",
            [("", Double(fold.failures))])
        metric(
            "headrace_fold_checkpoints_total", "counter", "Checkpoints since the start.",
            [("", Double(fold.checkpoints))])
        metric(
            "headrace_fold_restarts_total", "counter", "Times the fold went back to its checkpoint.",
            [("", Double(fold.restarts))])
        streamMetrics(metric)
        featureMetrics(metric)
        var samples: [(String, Double)] = []
        for topic in gateway.allTopics {
            samples.append(("{topic=\"\(topic.name)\"}", Double(try records(of: topic))))
        }
        metric(
            "headrace_topic_records", "gauge", "Records by topic; on Kafka the markers of transactions too.", samples)
        let counts = keys.counts
        metric(
            "headrace_subject_keys", "gauge", "Keys of personal fields, by what became of them.",
            [
                ("{state=\"live\"}", Double(counts.live)), ("{state=\"erased\"}", Double(counts.erased)),
                ("{state=\"damaged\"}", Double(counts.damaged)),
            ])
        metric("headrace_node_healthy", "gauge", "1 when nothing has failed.", [("", failures.isEmpty ? 1 : 0)])
        metric(
            "process_resident_memory_peak_bytes", "gauge", "High-water mark of resident memory.",
            [("", Double(headrace_peak_memory()))])
        return text
    }

    private func streamMetrics(_ metric: (String, String, String, [(String, Double)]) -> Void) {
        let streams = streams
        guard !streams.isEmpty else { return }
        func samples(_ value: (FoldStatus) -> Int64) -> [(String, Double)] {
            streams.map { stream in
                let sum = stream.folds.reduce(0) { $0 + value($1.status) }
                return ("{stream=\"\(stream.topology.name)\"}", Double(sum))
            }
        }
        metric("headrace_stream_events_total", "counter", "Input events folded here, by stream.", samples(\.folded))
        metric("headrace_stream_emitted_total", "counter", "Events emitted here, by stream.", samples(\.emitted))
        metric("headrace_stream_late_total", "counter", "Events behind progress met here, by stream.", samples(\.late))
        metric(
            "headrace_stream_failures_total", "counter", "Events that could not be folded here, by stream.",
            samples(\.failures))
        metric(
            "headrace_stream_tasks", "gauge", "Tasks that are folded here, by stream.",
            streams.map { ("{stream=\"\($0.topology.name)\"}", Double($0.folds.count)) })
        if let share {
            metric(
                "headrace_stream_rebalances_total", "counter", "Times that tasks came to this node or went.",
                [("", Double(share.rebalances))])
        }
    }

    private func logMetrics(
        _ log: LogStatistics, _ metric: (String, String, String, [(String, Double)]) -> Void
    ) {
        metric("headrace_log_syncs_total", "counter", "fdatasync calls since the start.", [("", Double(log.syncs))])
        metric(
            "headrace_log_written_bytes_total", "counter", "Bytes written to the log since the start.",
            [("", Double(log.bytesWritten))])
        metric(
            "headrace_log_moved_bytes_total", "counter", "Bytes ever moved from the WAL into partition files.",
            [("", Double(log.rewrittenBytes))])
        metric(
            "headrace_log_upkeep_bytes_total", "counter", "Bytes ever written by moving and compacting.",
            [("", Double(log.maintenanceBytes))])
        metric(
            "headrace_log_write_amplification", "gauge",
            "Bytes written for each byte that arrived, over what was moved; without indexes, ids and chain.",
            [("", log.writeAmplification)])
        metric(
            "headrace_log_lost_ids", "gauge", "Event ids that cannot be had any more.",
            [("", Double(log.lostIdentifiers.reduce(0) { $0 + $1.count }))])
        metric(
            "headrace_log_damaged_places", "gauge", "Damaged places that are known: found at opening, or met by reads.",
            [("", Double(log.damaged.count + log.rotten.count))])
        metric(
            "headrace_log_waiting_segments", "gauge", "Sealed WAL segments that wait to be moved.",
            [("", Double(log.waitingSegments))])
        metric(
            "headrace_log_upkeep_failed", "gauge", "1 when the last upkeep failed; the log's inspection says why.",
            [("", log.maintenanceFailure == nil ? 0 : 1)])
        metric("headrace_log_pending_bytes", "gauge", "Bytes waiting for the disk.", [("", Double(log.pendingBytes))])
    }
}
