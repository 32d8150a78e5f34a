import Base
import CPlatform
import EventLog
import Features
import Foundation
import RecordFormat

/// How often features were asked for, and some of the keys.
struct ViewUsage: Sendable {
    var questions: Int64 = 0
    var rows: Int64 = 0
    var last: Instant?
    var keys: [String] = []
}

/// What is known of served features: whether they are what the log gives, how fresh they are, how often they are missing, who
/// asks for them.
struct FeatureWatch: Sendable {
    var reports: [String: ViewReport] = [:]
    var usage: [String: ViewUsage] = [:]
    /// When a difference of a view was last told.
    var told: [String: Instant] = [:]
    var questions = 0
}

extension Node {
    /// Between two turns of a check, in seconds.
    private static let consistencyPause = 0.5
    /// The same while a check has to catch up and the fold has nothing to do.
    private static let catchingUpPause = 0.1
    /// How long a view that differs is not told of again, in milliseconds.
    private static let tellingPause: Int64 = 10 * 60 * 1000
    /// Of so many questions one gives its keys to the check.
    private static let askedShare = 64
    /// Keys of one question, and of one view, that are looked at beside the sample's own.
    private static let askedKeys = 8
    private static let askedLimit = 64

    /// Counts a question, and takes some of its keys.
    func noteUse(_ plan: FeaturePlan, _ question: FeatureQuestion, rows: Int) {
        let now = Instant.wallClock()
        watch.withLock { watch in
            watch.questions += 1
            let isTaken = watch.questions % Self.askedShare == 1
            for (view, name) in plan.keyed {
                watch.usage[view, default: ViewUsage()].questions += 1
                watch.usage[view]?.rows += Int64(rows)
                watch.usage[view]?.last = now
                guard isTaken, let keys = question.entities.first(where: { $0.name == name })?.keys else { continue }
                let fresh = keys.prefix(Self.askedKeys).compactMap { $0 }
                let all = (watch.usage[view]?.keys ?? []).filter { !fresh.contains($0) } + fresh
                watch.usage[view]?.keys = all.suffix(Self.askedLimit)
            }
        }
    }

    /// Checks every view that is served, a little at a time, when nobody else needs the processor.
    func consistencyLoop() {
        headrace_yield_to_others()
        work("the consistency check") {
            var checks: [String: ConsistencyCheck] = [:]
            while !stopping {
                var isCatchingUp = false
                for (name, view, version, fold) in try served() where !stopping && fold.status.loaded {
                    if checks[name]?.report.version != version || checks[name]?.fold !== fold {
                        checks[name] = ConsistencyCheck(
                            view, version: version, fold: fold, log: log, try compile())
                    }
                    guard let check = checks[name] else { continue }
                    let asked = watch.withLock { $0.usage[name]?.keys ?? [] }
                    do {
                        let differs = try check.round(asked: asked)
                        watch.withLock { $0.reports[name] = check.report }
                        isCatchingUp = isCatchingUp || (check.report.behind > 0 && fold.status.drained)
                        if differs { try tell(check.report) }
                    } catch let error as NodeError where ["fold-stopped", "busy"].contains(error.code) {
                        continue
                    }
                }
                _ = running.wait(seconds: isCatchingUp ? Self.catchingUpPause : Self.consistencyPause) {
                    $0.stopping ? true : nil
                }
            }
        }
    }

    /// Views with the version and the fold that serve them.
    private func served() throws -> [(name: String, view: FeatureView, version: Int64, fold: FoldHost)] {
        let registry = registry
        let catalog = try servedCatalog()
        return catalog.views.values.sorted { $0.name < $1.name }.compactMap { view in
            if let live = liveFold(view.name) { return (view.name, live.view, live.version, live.host) }
            guard registry.folded["\(FeatureView.kind)/\(view.name)"] != nil else { return nil }
            return (view.name, view, catalog.version(of: view), fold)
        }
    }

    /// An event for whoever watches, and a word in the node's notices.
    private func tell(_ report: ViewReport) throws {
        let now = Instant.wallClock()
        let isDue = watch.withLock { watch in
            if let last = watch.told[report.view], now - last < Self.tellingPause { return false }
            watch.told[report.view] = now
            return true
        }
        guard isDue, var data = report.difference?.object else { return }
        data["compared"] = .int(Int64(report.compared))
        data["mismatched"] = .int(Int64(report.mismatched))
        data["missing"] = .int(Int64(report.missing))
        data["extra"] = .int(Int64(report.extra))
        let json = JSON.object(data)
        _ = try log.append(
            LogAppend(
                principal: "node",
                events: [
                    (
                        "monitors.consistency", 0,
                        NewEvent(
                            id:
                                "consistency:\(report.view)@\(report.version):\(Digest.of(json.canonical).hex.prefix(16))",
                            source: "headrace:/consistency", type: "features.inconsistent", time: now,
                            key: [UInt8](report.view.utf8), data: json.canonical)
                    )
                ]))
    }

    /// Views whose served features are not what the log gives.
    var inconsistencies: [String] {
        watch.withLock { $0.reports.values.filter { $0.faults > 0 } }.sorted { $0.view < $1.view }.map { report in
            "features of '\(report.view)' are not what the log gives: \(report.mismatched) vectors differ, \(report.missing) are missing, \(report.extra) are of nothing, of \(report.compared) compared; last \(report.difference?.text ?? ""); headrace replay says where the state went wrong, and without DATA/state.sqlite it is folded again at the next start"
        }
    }
}
