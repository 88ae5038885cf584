module github.com/gantry-worker/gantry/contracts/client

go 1.26.0

require github.com/gantry-worker/gantry/contracts v0.0.0

replace github.com/gantry-worker/gantry/contracts => ..
