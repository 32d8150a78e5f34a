import Base
import GRDB
import Learning

/// Month by month: how a model did, what the first model alone would have done, and every retraining with its causes.
package enum PerformanceReport {
    /// - Parameter span: months over which to average; nil takes all.
    package static func make(
        _ database: Database, model: String, question: String, span: ClosedRange<String>?
    ) throws -> JSON {
        var retrains: [String: [JSON]] = [:]
        for row in try Row.fetchAll(
            database,
            sql:
                "SELECT requested_at, request_position, causes, version, state FROM models WHERE model = ? ORDER BY version",
            arguments: [model])
        {
            guard let at: String = row[0] else { continue }
            let causes = (row[2] as String?).flatMap { try? JSON(parsing: [UInt8]($0.utf8)) } ?? []
            retrains[String(at.prefix(7)), default: []].append(
                .object([
                    "position": .string(row[1] ?? ""), "at": .string(at), "causes": causes, "version": .int(row[3]),
                    "result": .string(row[4]),
                ]))
        }
        var months: [JSON] = []
        var means: (own: [Double], first: [Double]) = ([], [])
        let names = try String.fetchAll(
            database, sql: "SELECT DISTINCT report_month FROM predictions WHERE question = ? ORDER BY report_month",
            arguments: [question])
        for month in names {
            let (json, own, first) = try self.month(database, month, model, question, retrains[month] ?? [])
            months.append(json)
            guard span?.contains(month) ?? true else { continue }
            if let own { means.own.append(own) }
            if let first { means.first.append(first) }
        }
        func mean(_ values: [Double]) -> JSON {
            values.isEmpty ? .null : .double(values.reduce(0, +) / Double(values.count))
        }
        return .object([
            "model": .string(model), "months": .array(months), "meanAUC": mean(means.own),
            "firstModelMeanAUC": mean(means.first),
            "meanOver": span.map { .array([.string($0.lowerBound), .string($0.upperBound)]) } ?? .null,
        ])
    }

    private static func month(
        _ database: Database, _ month: String, _ model: String, _ question: String, _ retrains: [JSON]
    ) throws -> (JSON, Double?, Double?) {
        var scores: [Float] = []
        var firstScores: [Float] = []
        var labels: [Bool] = []
        var questions: Int64 = 0
        var versions: Set<Int64> = []
        let rows = try Row.fetchCursor(
            database,
            sql:
                "SELECT score, first_score, label, version FROM predictions WHERE question = ? AND report_month = ? AND (model = ? OR model IS NULL)",
            arguments: [question, month, model])
        while let row = try rows.next() {
            questions += 1
            guard let score: Double = row[0] else { continue }
            if let version: Int64 = row[3] { versions.insert(version) }
            guard let label: Int64 = row[2] else { continue }
            scores.append(Float(score))
            firstScores.append(Float(row[1] as Double? ?? .nan))
            labels.append(label == 1)
        }
        let auc = Metrics.auc(scores, labels)
        let first = firstScores.contains(where: \.isNaN) ? nil : Metrics.auc(firstScores, labels)
        let json = JSON.object([
            "month": .string(month), "questions": .int(questions),
            "coverage": .double(questions > 0 ? Double(labels.count) / Double(questions) : 0),
            "auc": auc.map { .double($0) } ?? .null,
            "logLoss": Metrics.logLoss(scores, labels).map { .double($0) } ?? .null,
            "firstModelAUC": first.map { .double($0) } ?? .null,
            "models": .array(versions.sorted().map { .string("\(model)@\($0)") }), "retrains": .array(retrains),
        ])
        return (json, auc, first)
    }
}
