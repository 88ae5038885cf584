package logship

// OpenWithIndex is Open with an index that is summed up at another size.
var OpenWithIndex = open
