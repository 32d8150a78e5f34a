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

    mutating func note(_ rows: Int, at now: Instant) {
        questions += 1
        self.rows += Int64(rows)
        last = now
    }
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
    /// How a check goes about it: how long a turn reads the log, and how long it pauses then, in seconds.
    private struct Pace {
        let turn: Double
        let pause: Double

        static let usual = Pace(turn: 0.02, pause: 0.5)
        /// While it has to catch up and the fold has nothing to do.
        static let catchingUp = Pace(turn: 0.02, pause: 0.03)
        /// While questions come: of several views one at a time, so that who asks does not notice.
        static let busy = Pace(turn: 0.002, pause: 0.1)
        /// Questions from one turn to the next that are many.
        static let many = 10
    }

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
                watch.usage[view, default: ViewUsage()].note(rows, at: now)
                guard isTaken, let keys = question.entities.first(where: { $0.name == name })?.keys else { continue }
                let fresh = keys.prefix(Self.askedKeys).compactMap { $0 }
                let all = (watch.usage[view]?.keys ?? []).filter { !fresh.contains($0) } + fresh
                watch.usage[view]?.keys = all.suffix(Self.askedLimit)
            }
        }
    }

    /// Counts a question about one key of one view.
    func noteUse(_ view: String) {
        let now = Instant.wallClock()
        watch.withLock { $0.usage[view, default: ViewUsage()].note(1, at: now) }
    }

    /// Checks every view that is served, a little at a time, when nobody else needs the processor.
    func consistencyLoop() {
        headrace_yield_to_others()
        work("the consistency check") {
            var checks: [String: ConsistencyCheck] = [:]
            var pace = Pace.usual
            var (turns, questions) = (0, 0)
            var (epoch, views) = (-1, [ServedView]())
            while !stopping {
                let now = watch.withLock { $0.questions }
                let isBusy = now - questions > Pace.many
                (questions, turns) = (now, turns + 1)
                if isBusy { pace = .busy }
                var isBehind = false
                // Definitions are compiled again only when others came into force, or another version into service.
                let latest = serving.withLock { $0.epoch }
                if latest != epoch { (epoch, views) = (latest, try served()) }
                for (place, served) in views.enumerated() where !stopping && served.fold.status.loaded {
                    let (name, view, version, fold) = (served.view.name, served.view, served.version, served.fold)
                    guard !isBusy || place == turns % views.count else { continue }
                    if checks[name]?.report.version != version || checks[name]?.fold !== fold {
                        checks[name] = ConsistencyCheck(view, version: version, fold: fold, log: log, try compile())
                    }
                    guard let check = checks[name] else { continue }
                    let asked = watch.withLock { $0.usage[name]?.keys ?? [] }
                    do {
                        let differs = try check.round(asked: asked, turn: pace.turn)
                        watch.withLock { $0.reports[name] = check.report }
                        isBehind = isBehind || (check.report.behind > 0 && fold.status.drained)
                        if differs { try tell(check.report) }
                    } catch let error as any DescribedError
                        where ["fold-stopped", "busy", "view-changed"].contains(error.code)
                    {
                        continue
                    }
                }
                _ = running.wait(seconds: pace.pause) { $0.stopping ? true : nil }
                pace = isBehind ? .catchingUp : .usual
            }
        }
    }

    private struct ServedView {
        let view: FeatureView
        let version: Int64
        let fold: FoldHost
    }

    /// Views with the version and the fold that serve them.
    private func served() throws -> [ServedView] {
        let registry = registry
        let catalog = try servedCatalog()
        return catalog.views.values.sorted { $0.name < $1.name }.compactMap { view in
            if let live = liveFold(view.name) {
                return ServedView(view: live.view, version: live.version, fold: live.host)
            }
            guard registry.folded["\(FeatureView.kind)/\(view.name)"] != nil else { return nil }
            return ServedView(view: view, version: catalog.version(of: view), fold: fold)
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
