package bus

import "time"

// AnswerWithin sets how long a lane may take to say that it has nothing.
func (p *Puller) AnswerWithin(d time.Duration) { p.answer = d }
