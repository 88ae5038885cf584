package demo

import (
	"bytes"
	"fmt"
	"math"
)

// The picture that the demo's task gets, as a binary PGM file.
const (
	pictureName   = "mountains.pgm"
	pictureWidth  = 1024
	pictureHeight = 1024
	white         = 255
)

// picture draws hills in front of hills, always the same. With inverted it
// draws their negative: what the task should make of it, found independently.
func picture(inverted bool) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "P5\n%d %d\n%d\n", pictureWidth, pictureHeight, white)
	for y := range pictureHeight {
		for x := range pictureWidth {
			tone := toneAt(x, y)
			if inverted {
				tone ^= white
			}
			out.WriteByte(tone)
		}
	}
	return out.Bytes()
}

// toneAt is the tone of the nearest ridge that covers the point, else the sky's.
func toneAt(x, y int) byte {
	for ridge := range 5 {
		height := pictureHeight * (80 - 12*ridge) / 100
		wave := 60*math.Sin(float64(x)/float64(90+37*ridge)+float64(ridge)*2) + 25*math.Sin(float64(x)/float64(31+7*ridge))
		if y > height+int(wave) {
			return byte(40 + 35*ridge)
		}
	}
	return byte(white - y*30/pictureHeight)
}
